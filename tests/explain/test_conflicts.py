"""Minimal conflicts are conflicts, and minimal: by brute force on random instances.

200 and more: ``python -m tests.fuzz.conflicts --count 300``.
"""

from __future__ import annotations

from collections import Counter

from tests.fuzz.conflicts import judged

SEEDS = range(90)
FEWEST = 25


def test_conflicts_are_minimal() -> None:
    kinds: Counter[str] = Counter()
    for seed in SEEDS:
        kind, complaints = judged(seed)
        assert not complaints, (seed, complaints)
        kinds[kind] += 1
    assert kinds["conflict"] >= FEWEST, kinds
    assert kinds["feasible or empty"] >= FEWEST, kinds
