"""Releases a model that passed its gate, and deploys it to a running engine."""
