"""Trains detectors and classifiers with torch, in a child process; what it writes runs in the engine."""
