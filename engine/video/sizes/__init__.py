"""How large frames and images may be, and how large they claim to be."""
