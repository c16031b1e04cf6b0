"""A run: the loop, the control socket, and changes while it goes on."""
