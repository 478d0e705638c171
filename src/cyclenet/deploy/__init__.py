"""Use of a trained network outside of experiments: Python, exported files, shared folders."""
