"""Actions tell people and machines about events: planned with restraint, delivered at least once."""
