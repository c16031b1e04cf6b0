"""The controller: assigns cameras to engines, renews leases, and reassigns only cameras that certainly stopped."""
