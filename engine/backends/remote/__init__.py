"""Models on servers of the Open Inference Protocol (KServe v2): Triton, MLServer, `framewire serve`."""
