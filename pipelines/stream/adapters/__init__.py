"""The messages of other systems, made from ours by pure functions; docs/wire.md says what each of them cannot hold."""
