"""Verbs about the message stream."""
