"""What is left of a plan's rate after the loss of GPUs or nodes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import Sketch, instance, plan_for
from tests.check.right import broken

from shardwright.check import check
from shardwright.schema.plan import Plan

# Rates grow with the sequences: three on a-0 and a-1, the fastest alone on b.
A0 = Sketch([(0, 8, "big", "a-0", (0,))], 4, 1)
BOTH = Sketch([(0, 4, "big", "a-0", (1,)), (4, 8, "big", "a-1", (1,))], 4, 2)
A1 = Sketch([(0, 8, "big", "a-1", (0,))], 4, 1)
B = Sketch([(0, 8, "small", "b", (0,))], 32, 1)
PLAN: Plan = plan_for(instance(), A0, BOTH, A1, B)
RATES = [r.rate_mtok_per_s for r in check(instance(), PLAN).figures.replicas]
ONE, SPLIT, SAME, FAST = RATES


def left(entry: dict[str, Any], needed: int, load: float = 1.0) -> set[str]:
    """Rules broken where ``needed`` mtok/s of answers of 200 tokens must be left."""
    changes = {
        "limits.survive": [{**entry, "load": load}],
        "workload.request_rate_per_s": needed / 200_000,
    }
    return broken(instance(changes), PLAN)


def test_rates_are_apart() -> None:
    assert ONE == SAME
    assert ONE + SPLIT < FAST


@pytest.mark.parametrize(
    ("entry", "rate"),
    [
        # any GPU: the fastest replica; any two: the next as well, wherever it lies
        ({"gpus": 1}, sum(RATES) - FAST),
        ({"gpus": 2}, sum(RATES) - FAST - max(ONE, SPLIT)),
        ({"gpus": 4}, 0),
        ({"gpus": 9}, 0),
        # any node: that of the fastest; any two: a-0 or a-1, with the replica on both
        ({"nodes": 1}, sum(RATES) - FAST),
        ({"nodes": 2}, sum(RATES) - FAST - ONE - SPLIT),
        # each node by itself: the replica on both is lost twice
        ({"nodes": 3}, sum(RATES) - FAST - ONE - SAME - 2 * SPLIT),
    ],
)
def test_survive(entry: dict[str, Any], rate: int) -> None:
    assert ("survive" in left(entry, 1)) == (rate < 1)
    if rate > 0:
        assert left(entry, rate) == set()
        assert left(entry, rate + 1) == {"survive"}


def test_a_share_of_the_load() -> None:
    # ⌈half of 2·(rate + 1)⌉ is one too many
    rate = sum(RATES) - FAST
    assert left({"gpus": 1}, 2 * rate, load=0.5) <= {"request_rate"}
    assert "survive" in left({"gpus": 1}, 2 * rate + 1, load=0.5)


def test_every_entry_has_its_row() -> None:
    entries = [{"gpus": 1}, {"nodes": 2, "load": 0.1}]
    changes = {"limits.survive": entries, "workload.request_rate_per_s": 0.001}
    rows = [r for r in check(instance(changes), PLAN).rows if r.rule == "survive"]
    assert [row.quantity for row in rows] == [
        "output rate without any GPU is",
        "output rate without any 2 nodes is",
    ]
