"""Models trained here on first use."""
