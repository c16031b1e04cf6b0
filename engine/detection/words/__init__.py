"""Bags of visual words: a classifier of SIFT descriptors, and the file that holds it."""
