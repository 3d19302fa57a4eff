"""Attacks that look for a success within a given eps."""
