"""Digests, redaction, secrets, limits. Standard library only."""
