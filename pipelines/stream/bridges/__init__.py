"""Bridges: small subscribers that hand the stream on to brokers, files, web hooks and browsers."""
