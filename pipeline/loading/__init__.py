"""From a .beton file to batches of images on a device."""
