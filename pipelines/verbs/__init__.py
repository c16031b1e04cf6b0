"""The verbs of the command line: each turns its options into a call of one function elsewhere."""
