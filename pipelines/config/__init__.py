"""Configuration: its models, and the file it is read from."""
