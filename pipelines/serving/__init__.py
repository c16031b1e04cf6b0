"""`framewire serve`: images recognised over HTTP, by the project's own API and by the Open Inference Protocol."""
