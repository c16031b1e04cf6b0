"""Prometheus metrics, health and traces of our processes."""
