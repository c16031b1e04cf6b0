"""Fakes for tests and for work on the pipeline without a model or a GPU."""
