"""Engines and a network on a simulated clock, for the controller that real fleets use."""
