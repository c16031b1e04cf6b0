"""Pixels for people: annotations, snapshots and privacy."""
