"""The page, and the plain report."""
