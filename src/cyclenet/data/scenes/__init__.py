"""Street scenes drawn by the project: data that needs no download."""
