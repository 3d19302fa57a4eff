"""Attacks that ask for scores only."""
