"""Pictures of predictions and charts of numbers."""
