"""Preparation speed: this project's preparation, Pillow's decoder, and writers of other formats."""
