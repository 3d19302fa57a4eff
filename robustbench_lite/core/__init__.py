"""The core types that everything else stands on; it imports nothing else of the house."""
