"""Benchmarks of the expert placement: `python -m benchmarks.experts [--quick]`."""
