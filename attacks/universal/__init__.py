"""Attacks that learn one perturbation for every sample."""
