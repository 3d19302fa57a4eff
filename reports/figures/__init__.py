"""Figures made of tables."""
