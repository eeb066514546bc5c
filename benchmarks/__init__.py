"""Measurements, run from the repository's root (README.md has the protocol)."""
