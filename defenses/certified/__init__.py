"""Defenses that come with a proof."""
