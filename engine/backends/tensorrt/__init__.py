"""TensorRT and TensorRT-RTX: building plans, and running them."""
