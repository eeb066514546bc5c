"""Fleets and their placement together: links that islands have not are cut off."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from tests.check.builders import BIG, DOCUMENT, changed, instance
from tests.differential.linked import compare, document_of
from tests.generators import instance_of

from shardwright.check import check
from shardwright.check.told import Told
from shardwright.formulations.cpsat import links
from shardwright.plan.anatomy import Anatomy
from shardwright.problem import compile_problem
from shardwright.schema.plan import GpuRank
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits
from shardwright.solve import solve

CASES = 45


def test_the_optimum_over_fleets_and_placements() -> None:
    """Against exhaustion of both at once; ``tests.differential.linked`` has more."""
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        seen += compare(seed)
    assert seen["feasible"] >= 14
    assert seen["infeasible"] >= 8
    assert seen["with slower links"] >= 12
    assert seen["with cuts"] >= 2
    assert seen["proven"] >= 0.8 * seen["feasible"]


@pytest.mark.parametrize("seed", range(12))
def test_plans_claim_the_links_of_their_gpus(seed: int) -> None:
    """The checker reads the cluster file a second time; ``solve`` passes it."""
    asked = instance_of(document_of(seed))
    if not compile_problem(asked).units:
        pytest.skip("no stage")
    solution = solve(asked, explain=False, workers=1)
    if solution.plan is not None:
        assert check(asked, solution.plan).ok
        anatomy = Anatomy(asked, solution.plan.document)
        for replica in solution.plan.document.replicas():
            loop = replica.operating_point.micro_batches * max(
                stage.decode_time_ns for stage in replica.stages
            )
            assert replica.latency.tpot_ns == max(loop, anatomy.loop_ns(replica))


def two_leaves(nodes: tuple[int, int], share: float) -> dict[str, Any]:
    """One-GPU nodes below two leaves; every replica has two of them."""
    count = sum(nodes)
    names = [f"n-{i}" for i in range(count)]
    switches = [
        {"name": "a", "nodes": names[: nodes[0]], "oversubscription": share},
        {"name": "b", "nodes": names[nodes[0] :], "oversubscription": share},
        {"name": "root", "switches": ["a", "b"]},
    ]
    changes = {
        "cluster.gpu_types": {"big": BIG},
        "cluster.nodes": [{"name": "n", "gpu": "big", "gpus": 1, "count": count}],
        "cluster.fabric": {"switches": switches},
        "fix.pp": 2,
        "objective": ["throughput"],
    }
    document: dict[str, Any] = changed(DOCUMENT, changes)
    return document


def fleet_of(nodes: tuple[int, int], share: float) -> tuple[list[int], dict[str, int]]:
    """Rates of the replicas of the proven plan, and the sizes of the search."""
    problem = compile_problem(instance_of(two_leaves(nodes, share)))
    outcome = solver("default").solve(problem, SearchLimits(30, workers=1))
    assert outcome.status is Status.OPTIMAL
    assert outcome.fleet is not None
    rates = [problem.figures(r.design).rate_mtok_per_s for r in outcome.fleet.replicas]
    assert all(len(r.design.stages) == 2 for r in outcome.fleet.replicas)
    return sorted(rates), outcome.model_size


def test_the_pair_that_is_left_over_crosses_leaves() -> None:
    """Leaves of three nodes hold a pair each; the third pair is slower, and priced."""
    even, sizes = fleet_of((2, 4), 1000)
    assert len(set(even)) == 1
    assert "link_cuts" not in sizes
    odd, sizes = fleet_of((3, 3), 1000)
    assert odd[1:] == even[1:]
    assert odd[0] < even[0]
    assert sizes["link_cuts"] == 1
    alike, sizes = fleet_of((3, 3), 1)
    assert alike == even
    assert "link_cuts" not in sizes


def test_what_is_too_large_to_lay_is_named_and_held_against_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values are those of the links that the GPUs have; limits are kept."""
    asked = instance_of(two_leaves((3, 3), 1000))
    best = solve(asked, workers=1)
    monkeypatch.setattr(links, "_MOST", 0)
    found = solve(asked, workers=1)
    assert best.status is Status.OPTIMAL
    assert found.status in (Status.OPTIMAL, Status.FEASIBLE)
    (first,), (named,) = best.result.objectives, found.result.objectives
    assert named.value is not None
    assert first.value is not None
    assert named.bound is not None
    assert named.value <= first.value <= named.bound
    tight = two_leaves((3, 3), 1000)
    assert best.plan is not None
    slowest = max(r.latency.tpot_ns for r in best.plan.document.replicas()) - 1000
    tight["slo"] = [{"metric": "tpot", "percentile": "mean", "limit_ms": slowest / 1e6}]
    kept = solve(instance_of(tight), workers=1)
    assert kept.status is not Status.OPTIMAL
    if kept.plan is not None:
        assert kept.report is not None
        assert kept.report.ok


def test_the_checker_reads_the_same_speeds() -> None:
    """Of every two GPUs on different islands, for random clusters."""
    compared = 0
    for seed in range(60):
        asked = instance_of(document_of(seed))
        reach, told = compile_problem(asked).reach, Told(asked.cluster)
        if reach is None:
            continue
        gpus = [(i.node, g) for i in reach.islands for g in i.gpus]
        nodes = {node.name: n for n, node in enumerate(reach.topology.nodes)}
        homes = {(i.node, g): i for i in reach.islands for g in i.gpus}
        for a, b in pairwise(gpus):
            if homes[a] is homes[b]:
                continue
            link = reach.topology.link((nodes[a[0]], a[1]), (nodes[b[0]], b[1]))
            speed = reach.topology.classes[link].bytes_per_s
            ranks = [GpuRank(node=n, gpu=g, rank=0) for n, g in (a, b)]
            assert abs(told.rate(*ranks) - speed) <= 1
            compared += 1
    assert compared > 100


def test_a_plan_on_slow_links_must_say_so() -> None:
    """The figures of fast links are refused for GPUs that have slow ones."""
    fast = instance_of(two_leaves((3, 3), 1))
    slow = instance_of(two_leaves((3, 3), 1000))
    plan = solve(fast, workers=1).plan
    assert plan is not None
    assert check(fast, plan).ok
    across = {
        r: {gpu.node for s in replica.stages for gpu in s.gpus}
        for r, replica in enumerate(plan.document.replicas())
    }
    left = {"n-0", "n-1", "n-2"}
    crossing = {
        f"replica {r}" for r, held in across.items() if 0 < len(held & left) < 2
    }
    assert crossing
    document = plan.document.model_copy(update={"instance_sha256": ""})
    broken = {v.entity for v in check(slow, document).violations if v.rule == "tpot"}
    assert broken == crossing


def test_one_island_has_no_reach() -> None:
    assert compile_problem(instance({"cluster.nodes.0.count": 1})).reach is None
