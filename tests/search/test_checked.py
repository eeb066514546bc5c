"""Whatever is found on random instances passes the independent checker.

``solve`` raises CheckFailed otherwise. As the generator draws them, and with the limits
that it sets taken away, so that plans are larger; a GPU type may be in the file without
a node of it, and a grid may list micro-batches that the engine ties to the stages.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.generators import instance_of, random_document

from shardwright.solve import solve

SEEDS = range(60)
FEWEST = 20


def as_drawn(seed: int) -> dict[str, Any]:
    """The document with a price on every GPU: files without are refused for costs."""
    found = random_document(seed)
    for gpu in found["cluster"]["gpu_types"].values():
        gpu["price_usd_per_hour"] = gpu.get("price_usd_per_hour") or 1.5
    return found


def loosened(seed: int) -> dict[str, Any]:
    """The document without limits on what may be used."""
    found = as_drawn(seed)
    limits = {"memory_fraction": found["limits"].get("memory_fraction", 1.0)}
    return {**found, "limits": limits, "slo": [], "fix": {}}


@pytest.mark.parametrize("draw", [as_drawn, loosened])
def test_plans_of_random_instances_pass_the_checker(draw: Any) -> None:
    found = 0
    for seed in SEEDS:
        solution = solve(instance_of(draw(seed)), time_limit_s=10, explain=False)
        found += solution.plan is not None
    assert FEWEST <= found < len(SEEDS) - FEWEST // 4, found
