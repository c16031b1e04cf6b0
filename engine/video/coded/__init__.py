"""A camera's coded video for viewers, without decoding: fragmented MP4, on demand."""
