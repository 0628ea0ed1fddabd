"""Benchmarks: tasks measured in turns, results as JSON files, tables and pages."""
