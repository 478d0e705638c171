"""Count what a model costs."""
