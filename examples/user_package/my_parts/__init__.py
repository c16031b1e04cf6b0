"""A detector, a tracker and an analyser for Framewire."""
