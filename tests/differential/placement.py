"""Placement against exhaustion: ``python -m tests.differential.placement --cases 600``.

Per seed: the optimum of ``place`` equals the oracle's in all three goals; bounds of the
programs for large clusters never exceed it, their plans never undercut it.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from random import Random

from tests.differential.command import main
from tests.differential.placement_cases import random_topology, random_traffic
from tests.differential.placement_oracle import Oracle

from shardwright.problem.topology import Topology
from shardwright.problem.traffic import Traffic
from shardwright.schema.errors import InstanceTooLarge
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits
from shardwright.search.placement import in_order, place
from shardwright.search.placement_floor import Floor
from shardwright.search.placement_nodes import NodeSearch
from shardwright.search.placement_types import PlacementCase
from shardwright.search.placement_walks import WalkSearch

Case = tuple[Topology, Traffic]


def case_of(seed: int) -> Case:
    """The case of a seed."""
    draw = Random(seed)
    topology = random_topology(draw)
    return topology, random_traffic(draw, topology)


def compare(seed: int, programs: bool = True) -> Counter[str]:
    """Assert that all answers agree; what was seen, to be counted."""
    topology, traffic = case_of(seed)
    best = Oracle(topology, traffic).best()
    result = place(topology, traffic, SearchLimits(time_limit_s=60))
    if best is None:
        assert result.status is Status.INFEASIBLE, (seed, result)
        return Counter(infeasible=1)
    assert result.bounds <= best, (seed, best, result)
    assert result.values >= best, (seed, best, result)
    check_assignment(topology, traffic, result.assignment)
    seen = Counter(feasible=1)
    if result.status is Status.OPTIMAL:
        assert result.values == best, (seed, best, result)
        seen["proven"] += 1
    seen["cost attained"] += result.values[0] == best[0]
    if programs:
        seen += _programs(seed, topology, traffic, best)
    return seen


def check_assignment(topology: Topology, traffic: Traffic, named) -> None:  # type: ignore[no-untyped-def]
    """Usable GPUs, each once, of the asked types."""
    gpus = [gpu for ranks in named for gpu in ranks]
    assert len(set(gpus)) == len(gpus) == traffic.gpus
    assert set(gpus) <= set(topology.usable)
    for replica, ranks in zip(traffic.replicas, named, strict=True):
        for stage, cut in zip(replica.stages, replica.slices(), strict=True):
            kinds = {topology.shape_of(node).gpu_type for node, _ in ranks[cut]}
            assert stage.gpu_type is None or kinds == {stage.gpu_type}


def _programs(
    seed: int, topology: Topology, traffic: Traffic, best: tuple[int, int, int]
) -> Counter[str]:
    """Programs for large clusters, on the small case."""
    case, seen = PlacementCase(topology, traffic), Counter[str]()
    limits = SearchLimits(time_limit_s=20, workers=1)
    assert Floor(case).bound() <= best[0], seed
    assert case.least_nodes <= best[1], seed
    assert case.least_exposure <= best[2], seed
    assert case.goals(in_order(case)) >= best, seed
    try:
        search = NodeSearch(case, limits)
        values = [case.goals(named) for named in search.plans()]
        assert search.bounds[0] <= best[0], (seed, search.bounds, best)
        assert all(value >= best for value in values), (seed, values, best)
        if search.bounds[0] == best[0]:
            assert search.bounds[1] <= best[2], (seed, search.bounds, best)
        seen["patterns tried"] += 1
        seen["patterns prove the cost"] += search.bounds[0] == best[0]
        seen["patterns attain the cost"] += best[0] in [v[0] for v in values]
    except InstanceTooLarge:
        seen["patterns refused"] += 1
    walks = WalkSearch(case, limits)
    if walks.fits:
        assert walks.bound() <= best[0], (seed, walks.bound(), best)
        values = [case.goals(named) for named in walks.plans()]
        assert all(value >= best for value in values), (seed, values, best)
        bound, better = walks.exact(best[0] + 1)
        assert bound <= best[0], (seed, bound, best)
        assert better is None or case.goals(better) >= best, (seed, better, best)
        seen["circuits prove the cost"] += bound == best[0]
        seen["walks tried"] += 1
        seen["walks prove the cost"] += walks.bound() == best[0]
    return seen


def renamed(topology: Topology, draw: Random) -> Topology:
    """The same topology with nodes and the GPUs inside them in another order."""
    shapes, orders = [], []
    for shape in topology.shapes:
        order = draw.sample(range(shape.gpus), shape.gpus)
        orders.append(order)
        links = tuple(tuple(shape.links[a][b] for b in order) for a in order)
        rails = tuple(shape.rails[a] for a in order)
        shapes.append(replace(shape, links=links, rails=rails))
    nodes = []
    for node in draw.sample(topology.nodes, len(topology.nodes)):
        order = orders[node.shape]
        usable = tuple(i for i, g in enumerate(order) if g in node.usable)
        nodes.append(replace(node, usable=usable))
    return replace(topology, shapes=tuple(shapes), nodes=tuple(nodes))


if __name__ == "__main__":
    sys.exit(main("tests.differential.placement", compare))
