"""One module per part: from the folders of its runs to its page."""
