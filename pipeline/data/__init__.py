"""Where images come from, until they are a .beton file."""
