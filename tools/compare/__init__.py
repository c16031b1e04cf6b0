"""Comparisons with other people's code."""
