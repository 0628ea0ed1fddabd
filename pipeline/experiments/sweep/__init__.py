"""Trainings of one job with several settings, their seeds paired."""
