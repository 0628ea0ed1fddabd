"""What a training is, as data."""
