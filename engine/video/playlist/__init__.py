"""HLS playlists from the network: what they may open, and common mistakes of servers. Imports no numpy."""
