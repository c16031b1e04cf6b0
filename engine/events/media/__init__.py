"""Images, clips and recordings of events."""
