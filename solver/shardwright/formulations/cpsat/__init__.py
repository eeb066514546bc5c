"""The programs for CP-SAT."""
