"""Networks, and what is done to them between training and use."""
