"""`framewire fleet`."""
