"""Dispatch rules on hand-made maps; affinity against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shardwright.experts import even_loads, lp_top, plan_experts, static_loads
from shardwright.experts.affinity import (
    Traffic,
    crossing,
    split_over_nodes,
)
from shardwright.experts.dispatch import static_shares
from shardwright.experts.effort import Effort


def test_own_gpu_first_then_the_node_then_a_fair_draw() -> None:
    maps = np.array([[0, 1, 0, 2, 3, 0, 4, 5]])
    share = static_shares(maps, 6, gpus=4, nodes=2, seed=None)[0]
    assert share.tolist() == [0.25, 1, 0.25, 1, 1, 0.5, 1, 1]


def test_newer_and_older_rule_differ_where_all_copies_share_a_node() -> None:
    maps = np.array([[0, 1, 0, 2, 3, 4, 5, 6]])
    newer = static_shares(maps, 7, 4, 2, "newer", seed=None)[0]
    older = static_shares(maps, 7, 4, 2, "older", seed=None)[0]
    assert newer[[0, 2]].tolist() == [0.5, 0.5]
    assert older[[0, 2]].tolist() == [0.5, 0.5]
    alone = np.array([[0, 1, 2, 0, 3, 4]])
    assert static_shares(alone, 5, 3, 1, "newer", seed=None)[0][0] == 0.5
    assert static_shares(alone, 5, 3, 1, "older", seed=None)[0][0] == 2 / 3


@pytest.mark.parametrize("rule", ["newer", "older"])
@pytest.mark.parametrize("seed", [None, 42])
def test_static_dispatch_loses_no_tokens(rule: str, seed: int | None) -> None:
    random = np.random.default_rng(2)
    load = random.integers(1, 99, (3, 10)).astype(float)
    maps = np.array([random.permutation([*range(10), 0, 0, 3, 5, 5, 9]) for _ in load])
    total = static_loads(load, maps, 4, 2, rule, seed)  # type: ignore[arg-type]
    assert total.sum(axis=1) == pytest.approx(load.sum(axis=1))


def test_lp_split_on_a_case_by_hand() -> None:
    load = np.array([[6.0, 3.0, 1.0]])
    maps = np.array([[0, 1, 0, 2]])
    assert even_loads(load, maps, 2).tolist() == [[6.0, 4.0]]
    assert lp_top(load, maps, 2) == pytest.approx([5.0])


def traffic(layers: int, experts: int, seed: int, slack: float = 99.0) -> Traffic:
    random = np.random.default_rng(seed)
    pairs = random.random((layers, experts, experts)) ** 3
    together = (pairs + np.swapaxes(pairs, 1, 2)) * (1 - np.eye(experts))
    steps = random.random((layers - 1, experts, experts)) ** 4
    load = random.integers(1, 20, (layers, experts)).astype(float)
    return Traffic(steps, together, load, slack)


@pytest.mark.parametrize("seed", range(4))
def test_chain_equals_brute_force(seed: int) -> None:
    case = traffic(3, 4, seed)
    halves = [np.array(p) for p in set(itertools.permutations([0, 0, 1, 1]))]
    best = min(
        crossing(case, np.array(choice))
        for choice in itertools.product(halves, repeat=3)
    )
    done = split_over_nodes(case, 2, Effort())
    assert done.proven
    assert done.crossing == pytest.approx(best) == pytest.approx(done.bound)


def test_swaps_beat_neighbours_and_respect_the_bound() -> None:
    case = traffic(3, 32, 1)
    done = split_over_nodes(case, 4, Effort(restarts=4))
    plain = np.repeat(np.repeat(np.arange(4), 8)[None], 3, axis=0)
    assert done.bound <= done.crossing < crossing(case, plain)
    assert (np.bincount(done.node[0]) == 8).all()


def test_slack_limits_the_node_loads() -> None:
    case = traffic(2, 16, 3, slack=0.1)
    done = split_over_nodes(case, 2, Effort(restarts=4))
    for layer, load in enumerate(case.load):
        total = np.bincount(done.node[layer], load)
        assert total.max() <= load.sum() / 2 * 1.1


@pytest.mark.parametrize("split", ["even", "sglang_static"])
def test_affinity_plans_keep_experts_on_their_node(split: str) -> None:
    case = traffic(3, 16, 5)
    plan = plan_experts(
        case.load,
        gpus=4,
        slots=20,
        nodes=2,
        split=split,  # type: ignore[arg-type]
        transitions=case.transitions,
        effort=Effort(restarts=2),
    )
    assert plan.crossing is not None
    maps = np.array(plan.physical_to_logical_map).reshape(3, 2, -1)
    for layer, nodes in enumerate(maps):
        for node, ids in enumerate(nodes):
            assert (plan.crossing.node[layer][ids] == node).all()
