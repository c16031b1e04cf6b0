"""`framewire fleet up`: the controller with its launcher, its links and its own control socket."""
