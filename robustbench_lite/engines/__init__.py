"""How jobs are carried out."""
