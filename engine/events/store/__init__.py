"""The database of events: schema, statements, one writer and any number of readers, on SQLite or PostgreSQL."""
