"""Images that mean nothing, and that a model is sure of."""
