"""Detectors: what looks unlike the training data is refused instead of classified."""
