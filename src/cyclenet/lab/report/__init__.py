"""Compare runs and judge claims."""
