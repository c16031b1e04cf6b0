"""Actions notify people and machines of events: planned with restraint, delivered at least once."""
