"""Verbs for the life cycle of a model."""
