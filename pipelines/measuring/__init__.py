"""Measures how fast the pipeline is, and how it copes with faults."""
