"""`framewire serve`: image recognition over HTTP, through the project's own API and the Open Inference Protocol."""
