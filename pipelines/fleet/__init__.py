"""Many machines as one: a ledger of owners, placement by measured cost, a controller, and launchers of engines."""
