"""Attacks on a model of one's own that are to break others: gradients averaged over what those may see."""
