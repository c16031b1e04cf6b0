"""Starts and restarts engines: the local launcher, or Ray."""
