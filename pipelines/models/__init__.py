"""Working with model files: inspect, build plans, check accuracy, detect on images."""
