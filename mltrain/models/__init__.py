"""Reference models and their tasks."""
