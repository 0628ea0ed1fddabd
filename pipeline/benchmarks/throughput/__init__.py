"""Loading speed: this project's loader and its peers, each in a process of its own."""
