"""What people do with the event log: list, watch, export and delete it, and ask new rules about the past."""
