"""Watches whether a model's input and output drift away from those at its release."""
