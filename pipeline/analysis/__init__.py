"""Statistics, label-noise diagnoses and comparisons of trainings. Reads no files."""
