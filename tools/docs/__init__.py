"""MkDocs hooks that generate pages of the documentation site."""
