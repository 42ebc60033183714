"""Datasets on disk, their order, and the loader. Usable alone."""
