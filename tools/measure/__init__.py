"""Measurements whose results the documentation quotes."""
