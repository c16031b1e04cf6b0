"""Reads YAML within limits and without guessing: configurations, requests and the metadata of models."""
