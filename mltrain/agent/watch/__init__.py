"""Looks at workers while they work: silent ones, slow ones, and where they are."""
