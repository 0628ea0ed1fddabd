"""Readers of raw archives, one file per kind."""
