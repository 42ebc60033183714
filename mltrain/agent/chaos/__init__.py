"""Breaks a live run on purpose: `mltrain chaos`."""
