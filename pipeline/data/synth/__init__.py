"""Synthetic handwriting: skeletons of characters, writers with styles, a pen, label noise."""
