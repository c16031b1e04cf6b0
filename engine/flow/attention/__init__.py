"""When the detector runs, and where on a frame."""
