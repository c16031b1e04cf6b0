"""A run: the main loop, the control socket, and changes while running."""
