"""What a network is, looks at, gets wrong and has seen before."""
