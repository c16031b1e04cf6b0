"""From a model's raw outputs to boxes: one small module per family of output layouts."""
