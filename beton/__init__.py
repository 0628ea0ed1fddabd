"""The .beton dataset format and its loader: numpy and numba, nothing of training."""
