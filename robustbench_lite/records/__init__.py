"""What a run leaves: rows, files, a folder."""
