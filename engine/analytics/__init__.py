"""What happens in a scene: zones, lines, dwell, speed and rules, from the tracks of one source."""
