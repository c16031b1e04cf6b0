"""HLS playlists from the network: who is trusted with what, and what servers get wrong. Imports no numpy."""
