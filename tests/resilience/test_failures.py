"""Failures: classes count every case once, re-plans hold, and nothing moves for free.

On seeded tiny instances with throughput as the goal; how many have a plan is asserted.
"""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Any

import pytest
from tests.generators import instance_of, random_document

from shardwright.check import check
from shardwright.problem import compile_problem
from shardwright.resilience import failure_classes, failures, without_gpus
from shardwright.resilience.movement import Weights, moved_bytes, stage_share
from shardwright.resilience.replan import Replanner
from shardwright.schema.errors import InstanceTooLarge
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.solve import solve

SEEDS = range(40)
FEWEST = 12


def document(seed: int) -> dict[str, Any]:
    """A random instance whose plan fills the cluster."""
    found = random_document(seed)
    found["workload"].pop("request_rate_per_s", None)
    for field in ("spare_gpus", "max_gpus", "max_cost_usd_per_hour"):
        found["limits"].pop(field, None)
    return {**found, "objective": ["throughput"], "fix": {}}


@cache
def planned() -> tuple[tuple[Instance, Plan], ...]:
    """Instances that have a plan, with it."""
    found = []
    for seed in SEEDS:
        instance = instance_of(document(seed))
        solution = solve(instance, time_limit_s=10, explain=False)
        if solution.plan is not None:
            found.append((instance, solution.plan.document))
    assert FEWEST <= len(found) < len(SEEDS)
    return tuple(found)


def usable(instance: Instance) -> int:
    """GPUs that may fail."""
    return sum(i.free for i in compile_problem(instance).islands)


@pytest.mark.parametrize("size", [1, 2])
def test_every_failure_is_in_one_class(size: int) -> None:
    for instance, plan in planned():
        gpus = failure_classes(instance, plan, gpus=size, nodes=0)
        assert sum(c.count for c in gpus) == comb(usable(instance), size)
        nodes = failure_classes(instance, plan, gpus=0, nodes=1)
        names = {i.node for i in compile_problem(instance).islands}
        assert sum(c.count for c in nodes) == len(names)


def test_a_class_stops_the_replicas_on_its_gpus() -> None:
    for instance, plan in planned():
        for one in failure_classes(instance, plan):
            hit = {
                i
                for i, replica in enumerate(plan.replicas())
                for stage in replica.stages
                for gpu in stage.gpus
                if (gpu.node, gpu.gpu) in one.lost
            }
            assert set(one.replicas) == hit


def test_replans_use_survivors_alone_and_pass_the_checker() -> None:
    seen = 0
    for instance, plan in planned()[:8]:
        for row in failures(instance, plan, time_limit_s=5).rows:
            for new in (row.keeping, row.best):
                if new is None:
                    continue
                seen += 1
                used = {
                    (g.node, g.gpu)
                    for r in new.view.document.replicas()
                    for s in r.stages
                    for g in s.gpus
                }
                assert not used & {*row.failure.lost}
                assert check(new.view.instance, new.view.document).ok
            if row.keeping and row.best and row.best.given_up == row.keeping.given_up:
                assert row.best.requests_per_s >= row.keeping.requests_per_s - 1e-9
    assert seen >= 10


def test_an_unchanged_plan_moves_nothing() -> None:
    for instance, plan in planned():
        assert moved_bytes(Weights(instance, plan), plan) == 0


def test_a_plan_on_empty_gpus_loads_every_stage_once() -> None:
    """From nothing, tensor-parallel ranks of a stage load each layer once together."""
    for instance, plan in planned():
        nothing = Weights(instance, plan.model_copy(update={"pools": plan.pools}))
        nothing.__dict__["held"] = {}
        expected = sum(
            nothing.layer_bytes[layer]
            for replica in plan.replicas()
            for stage in replica.stages
            for layer in range(*stage.layers)
        )
        stages = sum(len(s.gpus) for r in plan.replicas() for s in r.stages)
        assert abs(moved_bytes(nothing, plan) - expected) <= stages


def test_shares_of_a_stage_cover_its_layers() -> None:
    for _, plan in planned():
        for replica in plan.replicas():
            for stage in replica.stages:
                held = [stage_share(stage, i) for i in range(len(stage.gpus))]
                for layer in range(*stage.layers):
                    lows = sorted(share[layer] for share in held)
                    assert lows[0][0] == 0 and max(high for _, high in lows) == 1


def test_keeping_leaves_other_replicas_alone() -> None:
    kept_some = 0
    for instance, plan in planned():
        for one in failure_classes(instance, plan, nodes=0):
            new = Replanner(instance, plan, 5.0).keeping(one.lost)
            alive = [r for i, r in enumerate(plan.replicas()) if i not in one.replicas]
            if new is None:
                assert not alive
                continue
            kept_some += 1
            assert new.view.document.replicas()[: len(alive)] == tuple(alive)
            assert new.replicas_kept == len(alive)
    assert kept_some >= 10


def test_without_gpus_keeps_names_and_refuses_unknown_nodes() -> None:
    instance, _ = planned()[0]
    group = instance.cluster.nodes[0]
    node = group.node_names()[0]
    left = without_gpus(instance, [(node, 0)])
    before = [n for g in instance.cluster.nodes for n in g.node_names()]
    assert [n for g in left.cluster.nodes for n in g.node_names()] == before
    assert usable(left) == usable(instance) - (0 not in group.failed + group.reserved)
    with pytest.raises(KeyError, match="no-such-node"):
        without_gpus(instance, [("no-such-node", 0)])


def test_too_many_ways_are_refused() -> None:
    instance, plan = planned()[0]
    wide = instance.cluster.nodes[0].model_copy(update={"count": 300, "gpus": 8})
    cluster = instance.cluster.model_copy(update={"nodes": (wide,)})
    many = instance.model_copy(update={"cluster": cluster})
    empty = plan.model_copy(update={"pools": ()})
    with pytest.raises(InstanceTooLarge, match="ways to lose"):
        failure_classes(many, empty, gpus=3, nodes=0)


def test_a_gpu_type_may_be_lost_entirely() -> None:
    """A class without free GPUs once raised instead of leaving the type out."""
    for instance, _ in planned():
        types = {group.gpu for group in instance.cluster.nodes}
        if len(types) < 2:
            continue
        dead = sorted(types)[0]
        lost = [
            (node, gpu)
            for group in instance.cluster.nodes
            if group.gpu == dead
            for node in group.node_names()
            for gpu in range(group.gpus)
        ]
        problem = compile_problem(without_gpus(instance, lost))
        assert dead not in {problem.classes[u.gpu_class].name for u in problem.units}
        return
    pytest.fail("no instance with two types")
