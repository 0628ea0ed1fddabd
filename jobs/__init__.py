"""One file per experiment: a flat config and the wiring."""
