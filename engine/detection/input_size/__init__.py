"""A model at several input sizes: which one a frame needs, and windows of it."""
