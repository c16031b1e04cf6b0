"""Label formats of other programs: reading and writing them."""
