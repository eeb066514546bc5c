"""Placement: optima known from elsewhere, exhaustion by the hundred, large clusters."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.differential.placement import case_of, check_assignment, compare, renamed

from shardwright.problem.bottleneck import best_matching, best_ring
from shardwright.problem.linkcost import LinkCosts
from shardwright.problem.topology import (
    LinkClass,
    NetworkLevel,
    Node,
    NodeShape,
    Topology,
    uniform_links,
)
from shardwright.problem.traffic import (
    Collective,
    Peers,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
    Transfer,
)
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits
from shardwright.search.placement import in_order, place
from shardwright.search.placement_types import PlacementCase

SMALL = Path(__file__).parents[2] / "instances/topology/placement/small.json"
CASES: list[dict[str, Any]] = json.loads(SMALL.read_text(encoding="utf-8"))["cases"]
G = 10**9
LINKS = (
    LinkClass("bridge", 300 * G, 1000),
    LinkClass("switch", 50 * G, 2000),
    LinkClass("socket", 25 * G, 3000),
    LinkClass("leaf", 40 * G, 5000),
    LinkClass("leaf, other rail", 20 * G, 6000),
    LinkClass("spine", 10 * G, 9000),
)


def case_traffic(case: dict[str, Any]) -> tuple[Topology, Traffic]:
    """A recorded case as topology and traffic."""
    rows = [[speed * 1e9 for speed in row] for row in case["gbyte_per_s"]]
    topology = Topology.of_matrix(rows, case["available"])
    tp, dp = case["tp"], case["dp"]
    stage = StageTraffic(
        tp, (Collective("all_reduce", tp, case["tp_allreduce_bytes"]),)
    )
    replica = ReplicaTraffic.uniform(stage, case["pp"], case["pp_bytes"])
    peers = (Peers(tuple(range(dp)), case["dp_bytes"] // tp),) if dp > 1 else ()
    return topology, Traffic((replica,) * dp, (), peers, "max")


def bridged_nodes(nodes: int, per_leaf: int, failed: int = 0) -> Topology:
    """Nodes of eight GPUs: bridges (i, i + 4), two sockets, a rail per GPU."""

    def link(a: int, b: int) -> int:
        if a == b:
            return -1
        return 0 if abs(a - b) == 4 else 1 if (a < 4) == (b < 4) else 2

    links = tuple(tuple(link(a, b) for b in range(8)) for a in range(8))
    shape = NodeShape("A", links, tuple(range(8)), ("",) * 8, ("",) * 8)
    found = tuple(
        Node(
            f"n{i}",
            0,
            tuple(range(8)) if i >= failed else (0, 1, 2, 4, 5, 6, 7),
            (i // per_leaf, 999),
            f"rack{i // per_leaf}",
        )
        for i in range(nodes)
    )
    network = (NetworkLevel((3,), (4,)), NetworkLevel((5,), (5,)))
    return Topology(LINKS, (shape,), found, network)


def pipeline(tp: int, stages: int) -> ReplicaTraffic:
    """Equal stages with an all-reduce and a hop."""
    own = (Collective("all_reduce", tp, 64 * 10**6),) if tp > 1 else ()
    return ReplicaTraffic.uniform(StageTraffic(tp, own), stages, 4 * 10**6)


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["name"]))
def test_recorded_optima(case: dict[str, Any]) -> None:
    topology, traffic = case_traffic(case)
    result = place(topology, traffic)
    assert result.status is Status.OPTIMAL
    assert result.cost == pytest.approx(case["optimum_ms"] * 1e6, abs=16)
    assert {g for ranks in result.assignment for _, g in ranks} <= {*case["available"]}


def test_against_exhaustion() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        seen += compare(seed)
    assert seen["feasible"] == seen["proven"]
    assert (seen["feasible"], seen["infeasible"]) == (33, 7)
    assert seen["patterns prove the cost"] > 15
    assert seen["walks tried"] > 20


def test_ranks_are_matched_at_the_size_that_each_sends() -> None:
    """Half the hop's bytes per rank decide between a fast link and a quick one."""
    assert compare(5011, programs=False)["proven"] == 1


@pytest.mark.parametrize("seed", range(100, 125))
def test_names_of_nodes_and_gpus_do_not_matter(seed: int) -> None:
    topology, traffic = case_of(seed)
    result = place(topology, traffic)
    other = place(renamed(topology, Random(seed)), traffic)
    assert (other.status, other.values) == (result.status, result.values)


def test_order_of_replicas_does_not_matter() -> None:
    topology = bridged_nodes(3, 2, failed=1)
    replicas = (pipeline(2, 4), pipeline(4, 1), pipeline(2, 2), pipeline(4, 1))
    values = {
        place(topology, Traffic(order)).values
        for order in (replicas, replicas[::-1], (*replicas[2:], *replicas[:2]))
    }
    assert len(values) == 1


def test_taken_gpus_are_never_used() -> None:
    topology = bridged_nodes(2, 2).without([(0, 0), (0, 5), (1, 7)])
    traffic = Traffic((pipeline(2, 6),))
    result = place(topology, traffic)
    check_assignment(topology, traffic, result.assignment)
    assert not {(0, 0), (0, 5), (1, 7)} & {*result.assignment[0]}


def test_too_few_gpus_is_infeasible_and_of_a_type_too() -> None:
    topology = bridged_nodes(1, 1)
    assert place(topology, Traffic((pipeline(4, 3),))).status is Status.INFEASIBLE
    typed = ReplicaTraffic((StageTraffic(1, (), "other"),), ())
    assert place(topology, Traffic((typed,))).status is Status.INFEASIBLE


def test_a_tensor_group_may_be_larger_than_a_node() -> None:
    topology = bridged_nodes(4, 4)
    result = place(topology, Traffic((pipeline(16, 1),)))
    assert result.status is Status.OPTIMAL
    assert result.values[1] == 2
    assert result.cost == LINKS[3].time_ns(2 * 15 * 64 * 10**6, 16) + 29 * 5000


@pytest.mark.parametrize(
    ("nodes", "failed", "tp", "stages", "replicas"),
    [(8, 0, 2, 32, 1), (8, 0, 4, 8, 2), (8, 0, 2, 4, 8), (128, 3, 2, 8, 63)],
)
def test_node_patterns_prove_large_clusters(
    nodes: int, failed: int, tp: int, stages: int, replicas: int
) -> None:
    topology = bridged_nodes(nodes, 32, failed)
    traffic = Traffic((pipeline(tp, stages),) * replicas)
    result = place(topology, traffic)
    assert result.status is Status.OPTIMAL, result
    check_assignment(topology, traffic, result.assignment)
    case = PlacementCase(topology, traffic)
    assert result.values == case.goals(result.assignment)
    assert result.values <= case.goals(in_order(case))


def test_replicas_spread_over_racks() -> None:
    links = uniform_links(4, 0)
    shape = NodeShape("A", links, (-1,) * 4, ("",) * 4, ("",) * 4)
    nodes = tuple(
        Node(f"n{i}", 0, (0, 1, 2, 3), (i // 4, 9), f"rack{i // 4}") for i in range(12)
    )
    network = (NetworkLevel((3,), (3,)), NetworkLevel((5,), (5,)))
    topology = Topology(LINKS, (shape,), nodes, network)
    result = place(topology, Traffic((pipeline(4, 2),) * 3))
    assert result.values[1:] == (6, 1)
    assert result.status is Status.OPTIMAL


def test_transfers_draw_replicas_together() -> None:
    shape = NodeShape("A", uniform_links(2, 0), (-1,) * 2, ("",) * 2, ("",) * 2)
    nodes = tuple(Node(f"n{i}", 0, (0, 1), (i % 2, 9)) for i in range(4))
    network = (NetworkLevel((3,), (3,)), NetworkLevel((5,), (5,)))
    topology = Topology(LINKS, (shape,), nodes, network)
    pair = (pipeline(2, 1), pipeline(2, 1))
    result = place(topology, Traffic(pair, (Transfer(0, 1, 10**9),)))
    leaves = {topology.leaf(node) for ranks in result.assignment for node, _ in ranks}
    assert result.status is Status.OPTIMAL
    assert len(leaves) == 1


def test_what_was_assumed_and_is_not_had_is_told() -> None:
    topology = bridged_nodes(2, 2)
    assumed = replace(
        pipeline(4, 3),
        stage_limit_ns=(LINKS[0].time_ns(2 * 3 * 64 * 10**6, 4) + 5000,) * 3,
        hop_limit_ns=(10**9, 1),
    )
    found = place(topology, Traffic((assumed,))).unrealisable
    assert [u.part for u in found] == ["stage 0", "stage 1", "stage 2", "hop 1"]
    # a bridge is fast enough in class, but no four GPUs have a ring of them
    assert [u.proven for u in found] == [True, True, True, True]
    assert all(u.found_ns > u.assumed_ns for u in found)


def test_assumptions_can_fail_together_though_each_can_be_had() -> None:
    """Five pairs on four bridges: each alone has one."""
    bridge = LINKS[0].time_ns(64 * 10**6) + 1000
    one = replace(pipeline(2, 1), stage_limit_ns=(bridge,))
    topology = bridged_nodes(2, 2).without([(1, 0), (1, 5), (1, 6), (1, 3)])
    four = place(topology, Traffic((one,) * 4))
    assert (four.unrealisable, four.refuted) == ((), False)
    five = place(topology, Traffic((one,) * 5))
    assert [u.proven for u in five.unrealisable] == [False]
    assert five.refuted


def test_limits_end_the_search_with_a_plan_and_a_bound() -> None:
    topology = bridged_nodes(8, 4, failed=3)
    traffic = Traffic((pipeline(2, 15),) * 2)
    result = place(topology, traffic, SearchLimits(time_limit_s=0.0))
    assert result.status is Status.FEASIBLE
    assert result.stopped_by == "time"
    assert result.cost is not None and result.bound is not None
    assert 0 < result.bound < result.cost
    check_assignment(topology, traffic, result.assignment)


@pytest.mark.parametrize(
    ("cost", "ring"),
    [
        ([[0]], 0),
        ([[0, 7], [7, 0]], 7),
        ([[0, 1, 5], [1, 0, 2], [5, 2, 0]], 5),
        # a square of 1s with diagonals of 9
        ([[0, 1, 9, 1], [1, 0, 1, 9], [9, 1, 0, 1], [1, 9, 1, 0]], 1),
    ],
)
def test_best_ring(cost: list[list[int]], ring: int) -> None:
    assert best_ring(cost) == ring


def test_best_ring_of_many_goes_through_cliques() -> None:
    """Sixteen ranks in three nodes: links inside, and between equal indices."""
    ranks = [(n, g) for n, count in ((0, 7), (1, 7), (2, 2)) for g in range(count)]
    cost = [[1 if a[0] == b[0] or a[1] == b[1] else 9 for b in ranks] for a in ranks]
    assert best_ring(cost) == 1


def test_best_matching_shares_the_smaller_side() -> None:
    assert best_matching([[1, 9], [9, 1]]) == 1
    assert best_matching([[3, 5]]) == 5
    assert best_matching([[1, 2, 9, 9], [9, 9, 4, 3]]) == 4


def test_costs_by_hand() -> None:
    topology = bridged_nodes(2, 2)
    costs = LinkCosts(topology)
    gpus = [(0, g) for g in range(4)]
    ring = Collective("all_reduce", 4, 100 * 10**6, calls=3)
    # six steps of 25 MB at 50 GB/s, three times six start-ups of 2 us
    assert costs.collective(ring, gpus) == 3_000_000 + 36_000
    peers = Collective("all_to_all", 4, 100 * 10**6)
    assert costs.collective(peers, gpus) == 3 * (500_000 + 2000)
    # ranks of one rail meet: 4 MB over two pairs at 40 GB/s
    assert costs.hop([(0, 0), (0, 1)], [(1, 1), (1, 0)], 4 * 10**6) == 55_000
    assert costs.hop([(0, 0), (0, 1)], [(1, 2), (1, 3)], 4 * 10**6) == 106_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinkClass("x", 0),
        lambda: Collective("gossip", 2, 1),  # type: ignore[arg-type]
        lambda: StageTraffic(3, (Collective("all_reduce", 2, 1),)),
        lambda: ReplicaTraffic((StageTraffic(1),), (5,)),
        lambda: Traffic((pipeline(1, 1),), (Transfer(0, 1, 1),)),
        lambda: Topology.of_matrix([[0, 1], [2, 0]]),
        lambda: (
            Topology(LINKS, (), (), ()).without([(0, 0)])
            and Topology.of_matrix([[0, 1]])
        ),
    ],
)
def test_nonsense_is_refused(make: Any) -> None:
    with pytest.raises((InvalidInstance, IndexError)):
        make()
