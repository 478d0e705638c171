"""What a sweep does beyond its jobs."""
