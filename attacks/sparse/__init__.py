"""Attacks that change few pixels."""
