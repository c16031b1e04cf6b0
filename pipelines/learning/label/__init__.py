"""`framewire label`: a page to draw boxes on; a suggestion is never a label until somebody accepts it."""
