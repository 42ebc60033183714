"""Memory and goodput before a run is queued."""
