"""The outputs for packets: sockets, files, windows."""
