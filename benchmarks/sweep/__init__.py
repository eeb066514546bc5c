"""Sweeps: speed-up of two workers, killed workers, interruption and resumption."""
