"""What a network is, and what it bases its predictions on."""
