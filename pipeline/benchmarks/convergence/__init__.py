"""Time to accuracy: our recipes and published ones, each on our loader and on Pillow's."""
