"""Programs solved by dynamic programming and closed forms, without a solver."""
