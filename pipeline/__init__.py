"""From raw archives to trained models and the conclusions drawn from them."""
