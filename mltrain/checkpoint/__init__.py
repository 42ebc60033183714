"""Durable checkpoints: snapshot, writer, manifest, reader. Usable alone."""
