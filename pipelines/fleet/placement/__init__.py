"""Which camera runs on which machine: pure functions of measured costs and capacities."""
