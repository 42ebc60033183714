"""Shipped with mltrain; installed as mltrain.conf."""
