"""What a trained network looks at, gets wrong, and has seen before."""
