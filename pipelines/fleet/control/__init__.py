"""The controller: gives cameras to engines, renews their leases, and gives away only what was stopped for certain."""
