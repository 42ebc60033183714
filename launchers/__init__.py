"""Shipped with mltrain; installed as mltrain.launchers."""
