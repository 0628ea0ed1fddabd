"""Ink: images as runs, encoded, decoded and resized by compiled kernels."""
