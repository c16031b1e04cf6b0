"""Tests a model on images that it has never seen: corruptions, attacks, comparison, and a report."""
