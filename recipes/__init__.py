"""Shipped with mltrain; installed as mltrain.recipes."""
