"""Decides which camera runs on which machine, by pure functions of measured costs and capacities."""
