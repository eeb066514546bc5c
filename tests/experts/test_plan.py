"""`plan_experts`: valid maps in every mode, bounds, budgets, refused input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from shardwright.experts import (
    FAST,
    Deadline,
    Effort,
    even_loads,
    plan_experts,
    scenario_tables,
    static_loads,
)

LIGHT = Effort(restarts=4, proof_s=2.0)


def loads(layers: int, experts: int, seed: int = 0, spread: float = 0.8) -> np.ndarray:
    """Whole token counts, lognormal."""
    random = np.random.default_rng(seed)
    return np.rint(1000 * random.lognormal(0, spread, (layers, experts)))


def table(plan: Any) -> np.ndarray:
    return np.array(plan.physical_to_logical_map)


def assert_valid(plan: Any, experts: int, slots: int, gpus: int, apart: bool) -> None:
    """All experts, all slots, value at or above the bound, copies apart."""
    maps = table(plan)
    assert maps.shape[1] == slots
    for row in maps:
        assert set(row.tolist()) == set(range(experts))
        if apart:
            rooms = row.reshape(gpus, -1)
            assert all(len(set(r)) == len(r) for r in rooms.tolist())
    for top, bound, status in zip(plan.max_load, plan.bound, plan.status, strict=True):
        assert bound <= top * (1 + 1e-9)
        assert (status == "OPTIMAL") == (top <= bound * (1 + 1e-9))


MODES: list[dict[str, Any]] = [
    {},
    {"allow_copies_on_one_gpu": True},
    {"nodes": 2, "groups": 4},
    {"nodes": 2, "groups": 2},
    {"nodes": 2, "split": "sglang_static"},
    {"nodes": 2, "split": "sglang_static", "sglang_rule": "older"},
    {"nodes": 2, "groups": 4, "split": "sglang_static"},
    {"nodes": 1, "split": "sglang_static"},
    {"split": "lp"},
    {"nodes": 2, "groups": 4, "split": "lp"},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_gives_valid_maps(mode: dict[str, Any]) -> None:
    load = loads(3, 16)
    plan = plan_experts(load, gpus=8, slots=24, effort=LIGHT, **mode)
    apart = not mode.get("allow_copies_on_one_gpu", False)
    assert_valid(plan, 16, 24, 8, apart)
    if "groups" in mode:
        assert_groups(table(plan), mode["groups"], mode["nodes"], 16)
    if mode.get("split", "even") == "even":
        real = even_loads(load, table(plan), 8).max(axis=1)
        assert real == pytest.approx(plan.max_load)


def assert_groups(maps: np.ndarray, groups: int, nodes: int, experts: int) -> None:
    """Every group is on one node, and every node has as many groups."""
    group = maps.reshape(maps.shape[0], nodes, -1) // (experts // groups)
    for layer in group:
        sets = [set(node.tolist()) for node in layer]
        assert all(len(s) == groups // nodes for s in sets)
        assert not set.intersection(*sets)


def test_fast_effort_and_expired_deadline_still_plan() -> None:
    load = loads(2, 20)
    for effort in (FAST, Effort(deadline=Deadline.after(0.0, clock=lambda: 0.0))):
        plan = plan_experts(load, gpus=5, slots=25, effort=effort)
        assert_valid(plan, 20, 25, 5, True)


def test_grouped_optimum_equals_the_exhaustive_one() -> None:
    load = loads(3, 8, seed=4)
    plan = plan_experts(load, gpus=4, slots=12, nodes=2, groups=4)
    for layer, row in enumerate(load):
        best = min(
            max(_node_best(row, first), _node_best(row, rest))
            for first, rest in _halves(4)
        )
        assert plan.max_load[layer] == pytest.approx(best)
        assert plan.status[layer] == "OPTIMAL"


def _halves(groups: int) -> list[tuple[list[int], list[int]]]:
    parts = []
    for chosen in itertools.combinations(range(1, groups), groups // 2 - 1):
        first = [0, *chosen]
        parts.append((first, [g for g in range(groups) if g not in first]))
    return parts


def _node_best(load: np.ndarray, groups: list[int]) -> float:
    experts = [e for g in groups for e in (2 * g, 2 * g + 1)]
    best = float("inf")
    rooms = itertools.combinations(experts, 3)
    for pair in itertools.combinations_with_replacement(list(rooms), 2):
        held = [e for room in pair for e in room]
        if set(held) == set(experts):
            tops = (sum(load[e] / held.count(e) for e in room) for room in pair)
            best = min(best, max(tops))
    return best


@pytest.mark.parametrize("split", ["even", "sglang_static"])
def test_scenarios_beat_the_plan_for_one_of_them(split: str) -> None:
    tables = scenario_tables({"a": loads(2, 16, 1), "b": loads(2, 16, 2)})
    size: dict[str, Any] = {"gpus": 4, "slots": 24, "nodes": 2, "split": split}
    plan = plan_experts(tables, robust="worst", effort=LIGHT, **size)
    assert_valid(plan, 16, 24, 4, True)
    single = plan_experts(tables[0], effort=LIGHT, **size)
    if split == "even":
        other = even_loads(tables[1], table(single), 4)
        ratio = other.max(axis=1) / other.mean(axis=1)
        assert np.mean(plan.max_load) < ratio.mean()
    mean = plan_experts(tables, robust="mean", effort=LIGHT, **size)
    assert_valid(mean, 16, 24, 4, True)


@pytest.mark.parametrize("budget", [0, 1, 5, None])
@pytest.mark.parametrize("grouped", [False, True])
def test_moves_stay_within_the_budget(budget: int | None, grouped: bool) -> None:
    size: dict[str, Any] = {"gpus": 8, "slots": 40}
    if grouped:
        size |= {"nodes": 2, "groups": 4}
    old = plan_experts(loads(3, 32), effort=LIGHT, **size)
    drifted = loads(3, 32) * np.random.default_rng(1).lognormal(0, 0.3, (3, 32))
    current = table(old)
    plan = plan_experts(
        drifted, current=current, max_moves=budget, effort=LIGHT, **size
    )
    assert_valid(plan, 32, 40, 8, True)
    assert plan.moves is not None
    if budget is not None:
        assert max(plan.moves) <= budget
    assert list(plan.moves) == [_count(c, n) for c, n in zip(current, table(plan))]  # noqa: B905
    stale = even_loads(drifted, current, 8).max(axis=1)
    assert (np.array(plan.max_load) <= stale * (1 + 1e-9)).all()
    if grouped:
        assert_groups(table(plan), 4, 2, 32)


def _count(old: np.ndarray, new: np.ndarray) -> int:
    """Experts new to their GPU; whoever stays must keep a slot that was its own."""
    moves = 0
    for before, after in zip(old.reshape(8, -1), new.reshape(8, -1), strict=True):
        moves += len(set(after.tolist()) - set(before.tolist()))
        for expert in set(after.tolist()) & set(before.tolist()):
            assert (after[before == expert] == expert).any()
    return moves


def test_doubled_copies_in_the_current_map_are_separated_or_refused() -> None:
    load = np.array([[8.0, 4.0, 2.0, 2.0]])
    current = [[0, 0, 1, 2, 3, 1]]
    plan = plan_experts(load, gpus=2, slots=6, current=current, max_moves=3)
    assert_valid(plan, 4, 6, 2, True)
    with pytest.raises(ValueError, match="max_moves: found 0"):
        plan_experts(load, gpus=2, slots=6, current=current, max_moves=0)


def test_lp_split_is_never_worse_than_even_nor_below_its_bound() -> None:
    load = loads(4, 12, seed=6)
    even = plan_experts(load, gpus=6, slots=18, effort=LIGHT)
    best = plan_experts(load, gpus=6, slots=18, split="lp", effort=LIGHT)
    assert (np.array(best.max_load) <= np.array(even.max_load) * (1 + 1e-7)).all()
    assert_valid(best, 12, 18, 6, True)


def test_node_closed_plans_get_what_they_promise() -> None:
    load = loads(3, 32, seed=2)
    plan = plan_experts(load, gpus=8, slots=48, nodes=2, split="sglang_static")
    maps = table(plan)
    assert even_loads(load, maps, 8) == pytest.approx(static_loads(load, maps, 8, 2))
    node = np.arange(48) // 24
    for row in maps:
        assert all(len(set(node[row == e])) == 1 for e in range(32))


def test_result_is_plain_json() -> None:
    import json

    plan = plan_experts(loads(1, 4), gpus=2, slots=4)
    text = json.dumps(plan.to_json())
    assert json.loads(text)["physical_to_logical_map"] == table(plan).tolist()
    assert 0 < plan.worst_balance <= plan.balance <= 1


def test_zero_loads_are_planned() -> None:
    plan = plan_experts(np.zeros((2, 4)), gpus=2, slots=6)
    assert_valid(plan, 4, 6, 2, True)
    assert plan.balance == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"slots": 7}, "slots: found 7, allowed multiples of 2"),
    ({"slots": 2}, "slots: found 2, allowed 4 to 8"),
    ({"slots": 10}, "slots: found 10, allowed 4 to 8"),
    ({"gpus": 0}, "gpus: found 0"),
    ({"nodes": 3}, "gpus: found 2, allowed multiples of 3"),
    ({"nodes": 2, "groups": 3}, "groups: found 3"),
    ({"groups": 3, "nodes": 1}, "experts: found 4, allowed multiples of 3"),
    ({"max_moves": 3}, "max_moves: found without current"),
    ({"current": [[0, 1, 2]]}, "current: found shape"),
    ({"current": [[0, 1, 2, 9]]}, "current: found expert 9"),
    ({"current": [[0, 1, 2, 2]]}, "no slot of expert 3"),
    ({"transitions": np.ones((1, 4, 4))}, "transitions: found shape"),
    ({"coactivation": np.triu(np.ones((1, 4, 4)))}, "asymmetric"),
]


@pytest.mark.parametrize(("bad", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_bad_arguments_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_experts(np.ones((1, 4)), **({"gpus": 2, "slots": 4} | bad))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_bad_loads_are_refused(value: float) -> None:
    load = np.ones((1, 4))
    load[0, 2] = value
    with pytest.raises(ValueError, match="load: found"):
        plan_experts(load, gpus=2, slots=4)


@pytest.mark.parametrize("rule", ["newer", "older"])
@pytest.mark.parametrize("slots", [36, 48])
def test_static_plans_with_more_slots_than_rules_can_tie_to_nodes(
    rule: str, slots: int
) -> None:
    """Copies on one GPU are needed: an even plan, valued under static dispatch."""
    load = loads(2, 3)
    size: dict[str, Any] = {
        "gpus": 6,
        "slots": slots,
        "nodes": 3,
        "split": "sglang_static",
        "sglang_rule": rule,
        "allow_copies_on_one_gpu": True,
    }
    plan = plan_experts(load, effort=LIGHT, **size)
    assert_valid(plan, 3, slots, 6, False)
    again = plan_experts(load, current=table(plan), max_moves=2, effort=LIGHT, **size)
    assert_valid(again, 3, slots, 6, False)
