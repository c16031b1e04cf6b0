"""Decoding a model's raw outputs into boxes: one small module per family of output layouts."""
