"""Networks, and adaptive batch normalisation."""
