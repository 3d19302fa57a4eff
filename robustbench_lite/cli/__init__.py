"""The command `robust`."""
