"""Linear programs: bounds and prices."""
