"""Converts our messages to those of other systems with pure functions; docs/wire.md says what each cannot represent."""
