"""Comparisons of several trainings, and what the jobs share."""
