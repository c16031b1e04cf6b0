"""Who starts engines, and starts them again: this machine's launcher, or Ray."""
