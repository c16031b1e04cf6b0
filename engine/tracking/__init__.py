"""From detections to identities over time."""
