"""Several engine processes on one machine that appear as one engine: one address, one control socket, one summary."""
