"""CUDA: memory, streams, graphs and our kernels, through pycuda or cuda-bindings."""
