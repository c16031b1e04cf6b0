"""Running models: one protocol over ONNX Runtime, OpenVINO and TensorRT, and the readers of their files."""
