"""Supervises any command on a node: template, workers, causes, restarts."""
