"""How attacks are written and driven."""
