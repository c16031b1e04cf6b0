"""From packets to pixels: addresses, demuxing, decoding and frame times. Starts no threads and decides no policy."""
