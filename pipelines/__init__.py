"""What a person runs: the command line, configuration, and how configuration becomes objects."""
