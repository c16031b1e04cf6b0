"""Trains detectors and classifiers with torch, in a child process; the models it writes run in the engine."""
