"""When, and where on a frame, the detector looks."""
