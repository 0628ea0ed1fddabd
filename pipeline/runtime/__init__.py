"""What a process runs on: launch, signals, progress, hardware, files, timing."""
