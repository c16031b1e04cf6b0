"""From a model file and a frame to detections."""
