"""Methods of loading images, one file for libraries that are used alike; run by the worker."""
