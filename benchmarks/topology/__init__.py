"""Which GPU is which rank: placements with their proofs, by size of cluster."""
