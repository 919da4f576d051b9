"""dom0's own system on a board with two slots: written, tried, kept or given up. Knows no OMA DM; `mo.fumo` does."""
