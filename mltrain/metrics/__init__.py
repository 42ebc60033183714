"""Numbers of a run: one queue, one thread, many sinks."""
