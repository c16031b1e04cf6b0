"""When frames are released or asked for, where the address itself sets no pace: segments, single pictures."""
