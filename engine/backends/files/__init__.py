"""Readers of model files: tensors, metadata and weights, without any runtime."""
