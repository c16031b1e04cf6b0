"""The page and its API, in a separate process that reads the stream like any subscriber."""
