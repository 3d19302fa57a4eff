"""Attacks on answers with positions: a class a pixel, or a place of a string."""
