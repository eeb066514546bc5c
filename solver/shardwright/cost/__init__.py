"""The physics: memory, compute, communication and the replica law (no solver)."""
