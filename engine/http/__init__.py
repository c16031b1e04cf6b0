"""HTTP clients that servers cannot keep waiting."""
