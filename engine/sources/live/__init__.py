"""Cameras and network streams: read in a process that can be killed, and reconnected after a failure."""
