"""Conclusions from figures: numbers in, numbers and sentences out."""
