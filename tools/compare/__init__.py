"""Comparisons with the code of other projects."""
