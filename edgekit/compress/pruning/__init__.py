"""Which channels and blocks go, and how they are taken out."""
