"""Long differential runs."""
