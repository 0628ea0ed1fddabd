"""Decoding and training on a GPU, or the same code on the CPU where there is none."""
