"""Configuration: its models and how it is read from a file."""
