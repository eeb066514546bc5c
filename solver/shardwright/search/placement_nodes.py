"""Large clusters: solve the program over node patterns, name the GPUs, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from shardwright.formulations.cpsat.placement_nodes import (
    NodePlan,
    NodeProgram,
    cheapest,
    fewest_segments,
    solve_nodes,
)
from shardwright.formulations.cpsat.placement_spread import least_share
from shardwright.problem.traffic import Traffic
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits
from shardwright.search.placement_balance import Balancer
from shardwright.search.placement_naming import Namer
from shardwright.search.placement_program import NodeCompiler
from shardwright.search.placement_types import Named, PlacementCase

_WIDEST = 60_000


@dataclass
class NodeSearch:
    """Plans of the program, first with all leaves as one, then leaf by leaf.

    ``bounds`` grows while the plans are read: on the cost, and on the exposure of
    the plans whose cost is that bound.
    """

    case: PlacementCase
    limits: SearchLimits
    bounds: tuple[int, int] = (0, 0)
    sizes: dict[str, int] = field(default_factory=dict)

    def plans(self) -> Iterator[Named]:
        """Assignments, best effort first."""
        compiler = NodeCompiler(self.case)
        program = compiler.program
        self.sizes = {
            "node_kinds": len(program.supplies),
            "patterns": sum(len(s.patterns) for s in program.supplies),
            "segments": len(program.kinds_gpus),
            "leaves": len(program.leaves),
        }
        extra = compiler.coupling_bound()
        yield from self._solved(compiler, program.merged(), True, extra)
        arcs = sum(len(r.arcs) for r in program.replicas)
        several = len(program.leaves) > 1
        if several and len(program.leaves) * arcs * 3 <= _WIDEST:
            self.limits = _half(self.limits)
            yield from self._solved(compiler, program, False, extra)

    def _solved(
        self, compiler: NodeCompiler, program: NodeProgram, merged: bool, extra: int
    ) -> Iterator[Named]:
        done, plan = solve_nodes(program, self.limits, cheapest)
        if done.bound is not None:
            self._raise(self._combined(done.bound) + extra, 0)
        if plan is None:
            return
        least = plan.cost
        done, fewest = solve_nodes(
            program, self.limits, fewest_segments, max_cost=least
        )
        if fewest is not None:
            plan = fewest
        if merged and self._stays_home(compiler, program, least):
            self._raise(least, self._exposure(compiler))
        yield from self._named(compiler, plan, merged)
        yield from self._thinner(compiler, program, plan, merged)

    def _thinner(
        self, compiler: NodeCompiler, program: NodeProgram, plan: NodePlan, merged: bool
    ) -> Iterator[Named]:
        """The same cost and nodes with fewer replicas on any one node."""
        most = max(
            (p.segments for s in program.supplies for p in s.patterns), default=1
        )
        for segments in range(1, most):
            thin = program.thinned(segments)
            caps = plan.cost, plan.segments
            _, found = solve_nodes(thin, self.limits, None, *caps)
            if found is not None:
                yield from self._named(compiler, found, merged)
                return

    def _stays_home(
        self, compiler: NodeCompiler, program: NodeProgram, least: int
    ) -> bool:
        """Whether plans of the least cost keep each replica under one leaf.

        So it is where no stage is spread at that cost and the hops across leaves
        all cost more than those beside.
        """
        arcs = [arc for r in compiler.program.replicas for arc in r.arcs]
        dearer = all(a.across_ns > a.beside_ns for a in arcs if a.start)
        if (
            not dearer
            or self.case.traffic.combine != "sum"
            or self.case.traffic.coupled
        ):
            return False
        done, _ = solve_nodes(program, self.limits, None, least, spread=True)
        return done.status is Status.INFEASIBLE

    def _exposure(self, compiler: NodeCompiler) -> int:
        """Least exposure with each replica under one leaf, where leaves are domains."""
        topology, replicas = self.case.topology, self.case.traffic.replicas
        nodes = [i for i, node in enumerate(topology.nodes) if node.usable]
        homes = {topology.domain(i): topology.leaf(i) for i in nodes}
        if any(homes[topology.domain(i)] != topology.leaf(i) for i in nodes):
            return 0
        if len(set(homes.values())) != len(homes):
            return 0
        stage = min(s.gpus for r in replicas for s in r.stages)
        room: Counter[int] = Counter()
        for i in nodes:
            usable = len(topology.nodes[i].usable)
            room[topology.leaf(i)] += usable // stage * stage
        sizes = Counter(r.gpus for r in replicas)
        return least_share([*room.values()], [*sizes.items()], self.limits)

    def _named(
        self, compiler: NodeCompiler, plan: NodePlan, merged: bool
    ) -> Iterator[Named]:
        for fill in (False, True):
            named = Namer(compiler, plan, merged, fill).name()
            if named is not None:
                yield named
                if not self.case.traffic.coupled:
                    yield Balancer(self.case, [*named]).balanced()

    def _combined(self, total: int) -> int:
        """A bound on the sum as one on the goal: the worst is at least the mean."""
        traffic: Traffic = self.case.traffic
        if traffic.combine == "sum":
            return total
        return -(-total // len(traffic.replicas))

    def _raise(self, cost: int, exposure: int) -> None:
        """A bound on the cost, and on the exposure of plans that attain it."""
        if cost > self.bounds[0]:
            self.bounds = cost, exposure
        elif cost == self.bounds[0]:
            self.bounds = cost, max(self.bounds[1], exposure)


def _half(limits: SearchLimits) -> SearchLimits:
    """Half of what is left: other methods follow."""
    return replace(limits, time_limit_s=limits.elapsed_s() + limits.remaining_s() / 2)
