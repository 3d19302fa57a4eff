"""Attacks that ask for decisions only."""
