"""Camera video: copies a camera's own stream into files without decoding."""
