"""From configuration to objects: the one composition root."""
