"""Run folders: train, evaluate and submit in them."""
