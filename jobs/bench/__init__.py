"""Benchmarks: one file each, run by `./launch.sh bench NAME`."""
