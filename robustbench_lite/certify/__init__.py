"""Exact answers and proven lower bounds."""
