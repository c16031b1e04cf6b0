"""Verbs about the event log and the rules that fill it."""
