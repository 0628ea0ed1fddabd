"""Scaling: with processes, with the number of pages, and to a million samples."""
