"""The pages: which tables and plots show the runs of a part."""
