"""The programs for MILP engines, through PuLP."""
