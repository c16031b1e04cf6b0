"""Bridges: small subscribers that forward the stream to brokers, files, webhooks and browsers."""
