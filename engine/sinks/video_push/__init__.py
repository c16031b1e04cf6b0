"""Annotated video for other programs: encoded once, and pushed to media servers."""
