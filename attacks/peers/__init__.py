"""Attacks of other libraries: theirs searches, and is judged like any other."""
