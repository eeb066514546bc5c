"""Paths of the default solver that tiny instances do not reach by themselves.

The linear program thins columns out from 60 signatures on, and pools are incomplete
beyond 30,000 compositions: both limits are lowered here and held against brute force.
"""

from __future__ import annotations

import pytest
from tests.agreement import agree

from shardwright.search import compositions, decomposition

CASES = 120


def complaints(cases: range) -> dict[int | None, tuple[str, ...]]:
    verdicts = [agree(seed, ["default"], 20) for seed in cases]
    assert sum(v.feasible for v in verdicts) >= len(cases) / 4
    return {v.seed: v.complaints for v in verdicts if v.complaints}


@pytest.mark.parametrize("at_once", [1, 16])
def test_thinned_columns_keep_the_optimum(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decomposition, "_MANY", 1)
    monkeypatch.setattr(decomposition, "_PRICED_AT_ONCE", at_once)
    monkeypatch.setattr(decomposition, "_ROUNDS_PER_PLAN", 2)
    assert not complaints(range(CASES))


def test_incomplete_pools_claim_nothing_false(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list of compositions counts as too long, so fewest parts are taken."""
    listed = compositions._listed

    def fewest_parts(problem: object, fewest: bool) -> object:
        return listed(problem, fewest) if fewest else None  # type: ignore[arg-type]

    monkeypatch.setattr(compositions, "_listed", fewest_parts)
    assert not complaints(range(CASES, 2 * CASES))
