"""User operations on the event log: list, watch, export and delete events, and apply new rules to the past."""
