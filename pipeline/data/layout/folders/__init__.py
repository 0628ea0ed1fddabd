"""What the folders of relative paths mean: split, class and writer."""
