"""Bytes of a .beton file: its layout, its manifest, its pages, and samples encoded for them."""
