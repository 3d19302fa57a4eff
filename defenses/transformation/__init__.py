"""Transformations of the input that are meant to take an attack's change away."""
