"""Tests of a model on pictures that it has never seen: corruptions, attacks, comparison, and a report."""
