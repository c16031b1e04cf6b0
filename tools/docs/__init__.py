"""What builds generated pages of the documentation site."""
