"""Trainings of networks that are meant to make them robust."""
