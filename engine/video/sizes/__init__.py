"""Limits for the size of frames and images, and the size that headers claim."""
