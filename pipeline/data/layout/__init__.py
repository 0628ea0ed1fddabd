"""Layout: which part of a path or table is the class, the split and the writer."""
