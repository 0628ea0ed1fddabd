"""From a .beton file to batches on a device."""
