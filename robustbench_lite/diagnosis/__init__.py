"""Whether an attack's success can be trusted."""
