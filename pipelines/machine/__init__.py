"""The machine that framewire runs on: services, set-up, support, migration."""
