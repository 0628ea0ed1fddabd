"""Folders, zip and tar archives behind one interface."""
