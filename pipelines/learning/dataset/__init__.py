"""Data sets: collect, import, split, check, export and preview the images that a model is trained on."""
