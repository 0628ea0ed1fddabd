"""Recipes: the stages, losses and mixing of a training, as data."""
