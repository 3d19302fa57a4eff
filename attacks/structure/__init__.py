"""Attacks that work on a model's structure."""
