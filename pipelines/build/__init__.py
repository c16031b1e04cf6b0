"""Builds the objects that a configuration describes: the only composition root."""
