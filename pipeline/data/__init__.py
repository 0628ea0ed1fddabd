"""From raw images or the generator of synthetic handwriting to .beton files."""
