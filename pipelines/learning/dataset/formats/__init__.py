"""Label formats of other programs: what each holds, and how to write it."""
