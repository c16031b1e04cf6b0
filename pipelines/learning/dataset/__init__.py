"""Data sets: collect, import, split, check, export and look at the pictures that a model is trained on."""
