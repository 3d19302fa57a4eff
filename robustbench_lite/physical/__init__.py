"""Images on paper: sheets to print, and photographs of them read back."""
