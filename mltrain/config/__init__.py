"""Recipes: sources, composition, origins, checking, building. Free of torch."""
