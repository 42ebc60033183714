"""Is this machine fit to train? Looked at before each attempt (cheap) and by `mltrain doctor` (with what takes seconds)."""
