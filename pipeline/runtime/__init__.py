"""The environment of a process: launch, signals, progress, hardware, files."""
