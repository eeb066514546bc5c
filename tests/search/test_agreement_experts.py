"""The default solver against brute force on tiny mixtures of experts.

Latent attention, shared experts, attention data parallelism and every engine's shapes
take part; all rules and goals are those of the dense cases.
"""

from __future__ import annotations

import pytest
from tests.agreement import agree

CASES = 120
BLOCK = 30


@pytest.mark.parametrize("first", range(0, CASES, BLOCK))
def test_default_agrees_with_brute_force(first: int) -> None:
    verdicts = [
        agree(seed, ["default", "greedy"], experts=True)
        for seed in range(first, first + BLOCK)
    ]
    complaints = {v.seed: v.complaints for v in verdicts if v.complaints}
    feasible = sum(v.feasible for v in verdicts)
    print(f"{feasible} feasible, {BLOCK - feasible} infeasible")
    assert not complaints
    assert BLOCK / 4 <= feasible <= 3 * BLOCK / 4
