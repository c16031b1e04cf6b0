"""Scores against ground truth, for detectors, trackers and whole pipelines."""
