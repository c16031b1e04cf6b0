"""Camera video: copies a camera's stream into files without decoding it."""
