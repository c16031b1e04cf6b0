"""Verbs about model files."""
