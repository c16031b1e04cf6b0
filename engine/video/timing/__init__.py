"""Capture times and frame boundaries: arrivals, stream time, backlogs, pieces of RTP. Imports no numpy."""
