"""Targets on percentiles: the default solver against brute force over every split.

Each design is a queueing model, so the instances are smaller than elsewhere. Where the
layers differ or GPU types mix, the default may end with a bound above its plan; how
often is limited. More: ``python -m tests.fuzz.percentiles --count 100``.
"""

from __future__ import annotations

from collections import Counter

import pytest
from tests.agreement import agree_on
from tests.fuzz.percentiles import document, small

from shardwright.search import decomposition

SEEDS = range(26)
FEWEST = 4


@pytest.mark.parametrize("many", [decomposition._MANY, 1])
def test_default_agrees_with_brute_force(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few columns the fleet's relaxation is not asked first, unless forced to."""
    monkeypatch.setattr(decomposition, "_MANY", many)
    kinds: Counter[str] = Counter()
    for seed in SEEDS:
        case = document(seed)
        if not small(case):
            continue
        verdict = agree_on(case, ["default"], time_limit_s=60, seed=seed)
        assert not verdict.complaints, (seed, verdict.complaints)
        kinds["feasible" if verdict.feasible else "infeasible"] += 1
        kinds["unproven"] += bool(verdict.unproven)
    assert min(kinds["feasible"], kinds["infeasible"]) >= FEWEST, kinds
    assert kinds["unproven"] <= 3, kinds
