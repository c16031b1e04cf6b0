"""Verbs of the life cycle of a model."""
