"""PNG files: their chunks, a fast decoder of plain ones, and the kernels for its rows."""
