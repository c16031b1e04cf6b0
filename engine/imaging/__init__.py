"""Images for people to look at: annotations, snapshots and privacy."""
