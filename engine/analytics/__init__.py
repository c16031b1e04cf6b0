"""Scene analytics: zones, lines, dwell, speed and rules, computed from the tracks of one source."""
