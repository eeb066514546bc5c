"""Program C: which physical GPU is which rank.

Few GPUs are covered completely. Larger cases have a plan from node patterns, walks
over groups, or, always, from the order of the GPUs; and bounds from the same programs.
OPTIMAL is claimed when a bound meets the plan's cost, evaluated on its order of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shardwright.problem.topology import Gpu, Topology
from shardwright.problem.traffic import Traffic
from shardwright.schema.errors import InstanceTooLarge
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.placement_assumed import refuted, unrealisable
from shardwright.search.placement_exact import exact_work_fits, solve_exactly
from shardwright.search.placement_floor import Floor
from shardwright.search.placement_nodes import NodeSearch
from shardwright.search.placement_order import rank_order
from shardwright.search.placement_types import (
    Named,
    PlacementCase,
    PlacementResult,
)
from shardwright.search.placement_walks import WalkSearch

Bounds = tuple[int, int, int]


def place(
    topology: Topology, traffic: Traffic, limits: SearchLimits | None = None
) -> PlacementResult:
    """The best assignment of GPUs to the ranks of ``traffic`` within the limits.

    Goals in order: link cost, nodes of all replicas, replicas that one failure
    domain holds. INFEASIBLE only when usable GPUs (of a type) are too few: every
    placement is possible at its real cost.
    """
    limits = limits or SearchLimits()
    bare = tuple(
        replace(r, stage_limit_ns=(), hop_limit_ns=()) for r in traffic.replicas
    )
    case = PlacementCase(topology, replace(traffic, replicas=bare))
    if case.short:
        seconds = limits.elapsed_s()
        return PlacementResult(Status.INFEASIBLE, "proof", seconds=seconds)
    search = _Search(case, limits)
    try:
        search.run()
        stopped: StoppedBy = "memory"
    except Interrupted as why:
        stopped = why.stopped_by
    result = search.result(stopped)
    failed = unrealisable(case, traffic, result.assignment)
    shown = result.bound is not None and refuted(traffic, result.bound)
    return replace(result, unrealisable=failed, refuted=shown)


@dataclass
class _Search:
    """Best assignment and bounds so far."""

    case: PlacementCase
    limits: SearchLimits
    named: Named = ()
    values: Bounds | None = None
    bounds: Bounds = (0, 0, 0)
    method: str = ""
    sizes: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Methods from the surest to the widest, until everything is proven."""
        case = self.case
        if exact_work_fits(case):
            proved = solve_exactly(case)
            if proved is not None:
                self.bounds = proved[1]
                self.offer(proved[0], "enumeration")
                if self.values == self.bounds:
                    return
        self.bounds = (
            self.bounds[0],
            max(self.bounds[1], case.least_nodes),
            max(self.bounds[2], case.least_exposure),
        )
        self.raise_bounds(Floor(case).bound())
        self.offer(in_order(case), "order")
        for method in (self._by_nodes, self._by_walks):
            if self.values == self.bounds:
                return
            self.limits.poll()
            method()
        self.limits.poll()

    def _by_nodes(self) -> None:
        try:
            search = NodeSearch(self.case, self.limits)
            for named in search.plans():
                self.offer(named, "node patterns")
                self.raise_bounds(*search.bounds)
                if self.values == self.bounds:
                    break
            self.raise_bounds(*search.bounds)
            self.sizes |= search.sizes
        except InstanceTooLarge:
            self.sizes["node_patterns_refused"] = 1

    def _by_walks(self) -> None:
        search = WalkSearch(self.case, self.limits)
        if not search.fits:
            return
        self.raise_bounds(search.bound())
        for named in search.plans():
            self.offer(named, "walks")
            assert self.values is not None
            if self.values[0] == self.bounds[0]:
                return
        assert self.values is not None
        bound, better = search.exact(self.values[0])
        if better is not None:
            self.offer(better, "circuits")
        self.raise_bounds(bound)

    def offer(self, named: Named, method: str) -> None:
        """Keep an assignment if it is better than what there is."""
        values = self.case.goals(named)
        if self.values is None or values < self.values:
            self.named, self.values, self.method = named, values, method

    def raise_bounds(self, cost: int, exposure: int = 0) -> None:
        """Keep the better bounds; that on the exposure counts once the cost is met."""
        nodes, exposed = self.bounds[1:]
        if self.values is not None and cost == self.values[0]:
            exposed = max(exposed, exposure)
        self.bounds = max(self.bounds[0], cost), nodes, exposed

    def result(self, stopped: StoppedBy) -> PlacementResult:
        """The outcome as it stands."""
        seconds = self.limits.elapsed_s()
        if self.values is None:
            return PlacementResult(Status.UNKNOWN, stopped, seconds=seconds)
        proven = self.values == self.bounds
        return PlacementResult(
            Status.OPTIMAL if proven else Status.FEASIBLE,
            "proof" if proven else stopped,
            self.named,
            self.values,
            self.bounds,
            seconds,
            self.method,
            sizes=self.sizes,
        )


def in_order(case: PlacementCase) -> Named:
    """GPUs in the order of nodes and indices, typed stages first: always fits."""
    topology = case.topology
    queues: dict[str, list[Gpu]] = {}
    for gpu in topology.usable:
        queues.setdefault(topology.shape_of(gpu[0]).gpu_type, []).append(gpu)
    given: dict[tuple[int, int], tuple[Gpu, ...]] = {}
    stages = [
        (r, s, stage)
        for r, replica in enumerate(case.traffic.replicas)
        for s, stage in enumerate(replica.stages)
    ]
    for r, s, stage in sorted(stages, key=lambda item: item[2].gpu_type is None):
        queue = queues[stage.gpu_type] if stage.gpu_type else _joined(queues)
        given[r, s] = tuple(queue[: stage.gpus])
        for gpu in given[r, s]:
            queues[topology.shape_of(gpu[0]).gpu_type].remove(gpu)
    return tuple(
        rank_order(
            case.costs, replica, [given[r, s] for s in range(len(replica.stages))]
        )
        for r, replica in enumerate(case.traffic.replicas)
    )


def _joined(queues: dict[str, list[Gpu]]) -> list[Gpu]:
    return [gpu for queue in queues.values() for gpu in queue]
