"""The attacks: one file each, mathematics only; the driver does the rest."""
