"""Verbs about the page in the browser."""
