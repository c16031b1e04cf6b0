"""Camera video: a camera's own stream, copied into files without decoding."""
