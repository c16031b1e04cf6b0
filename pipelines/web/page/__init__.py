"""The page and its API, in a process of its own that reads the stream like any subscriber."""
