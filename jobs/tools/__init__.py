"""Commands that look at a network or use it: one file each."""
