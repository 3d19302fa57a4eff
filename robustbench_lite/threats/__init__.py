"""Where an adversarial example may lie."""
