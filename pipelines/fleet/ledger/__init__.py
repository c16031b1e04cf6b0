"""The ledger: which engine owns which camera, changed by compare-and-set only."""
