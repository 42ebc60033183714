"""The loop (loop.py, the first screen) and what hangs on time: evaluation, stopping, callbacks."""
