"""Addresses, and HTTP clients that servers cannot keep waiting."""
