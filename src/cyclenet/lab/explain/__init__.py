"""Look into a trained network."""
