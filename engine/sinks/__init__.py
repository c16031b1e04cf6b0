"""Where packets go: sockets, files, windows."""
