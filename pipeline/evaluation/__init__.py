"""Predictions of trained networks, their scores, and run directories."""
