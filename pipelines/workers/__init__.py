"""Several engine processes on one machine that look like one engine: one address, one control socket, one summary."""
