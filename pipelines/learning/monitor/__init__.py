"""Watches whether what a model sees and says drifts away from what it was released for."""
