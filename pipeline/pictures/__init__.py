"""From any image file to the prediction of a trained network."""
