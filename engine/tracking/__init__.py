"""Tracking: gives detections an identity over time."""
