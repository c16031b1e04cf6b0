"""The life cycle of a model: prepare data, train, test, release, watch. A running engine imports none of it."""
