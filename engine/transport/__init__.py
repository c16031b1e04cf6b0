"""ZeroMQ sockets: keys, encryption and the options that every socket shares."""
