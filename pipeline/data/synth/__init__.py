"""Synthetic handwriting: skeletons of characters, writers with habits, a pen that draws them."""
