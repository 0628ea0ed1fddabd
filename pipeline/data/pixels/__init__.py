"""From the bytes of an image file to 8-bit grey pixels, and what only pixels show."""
