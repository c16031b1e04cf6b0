"""The ledger: which engine owns which camera, changed only by compare-and-set."""
