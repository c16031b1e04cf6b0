"""`framewire label`: a page to draw boxes on; a suggestion does not become a label until a person accepts it."""
