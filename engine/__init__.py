"""Framewire engine: capture, detect, track, publish. The library; it never prints and knows no configuration files."""
