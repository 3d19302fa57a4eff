"""Faces of other libraries: code written for them runs after one import is changed."""
