"""Differential tests: an answer against an independent one, by the hundred."""
