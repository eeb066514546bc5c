"""Program over node patterns: how many nodes hold what, and how segments join.

Per leaf l, kind of node v and pattern P: y nodes. Per replica kind r an arc [i, j) is
a segment of stages i to j on one node, or one stage spread over several nodes; z
counts arcs by where the stage before lies: on another node of the leaf, on the same
nodes (both spread), or under another leaf. Arcs of a kind of replica are a flow from
stage 0 to the last through every boundary, so z always decomposes into replicas.
Stages over several leaves lie under a leaf of their own, which has no nodes.

    sum of arcs of kind k in l  <=  sum over P of #(k in P) y          every l, k
    sum of y over P             <=  nodes of kind v in l               every l, v
    GPUs of spread stages       <=  GPUs left over by the patterns     every l
    min  pattern costs + hops between nodes + spread stages

Every placement is a solution of no higher cost, so the optimum is a bound; it is
attained when the naming finds GPUs at that cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.engine import EngineRun, Limits, run
from shardwright.formulations.node_patterns import Pattern

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

BESIDE, ON_SPREAD, ACROSS = range(3)
"""Where the stage before an arc lies."""


@dataclass(frozen=True)
class Arc:
    """Stages [start, end) as a segment of ``kind``, or one stage spread (kind None).

    ``beside_ns`` and ``across_ns`` are the costs of the hop into it under the same
    leaf and another one, ``joined_ns`` from a spread stage to a spread one (None:
    impossible); ``cost_ns`` that of a spread stage, ``torn_ns`` of one over several
    leaves; ``nodes`` at least touched.
    """

    start: int
    end: int
    kind: int | None
    beside_ns: int
    across_ns: int
    joined_ns: int | None = None
    torn_ns: int = 0
    cost_ns: int = 0
    gpus: int = 0
    gpu_type: str | None = None
    nodes: int = 1

    @property
    def hop_ns(self) -> tuple[int, int | None, int]:
        """Costs of the hop by BESIDE, ON_SPREAD, ACROSS."""
        return self.beside_ns, self.joined_ns, self.across_ns


@dataclass(frozen=True)
class ReplicaArcs:
    """Equal replicas: how many, their number of stages, their arcs."""

    count: int
    stages: int
    arcs: tuple[Arc, ...]


@dataclass(frozen=True)
class NodeSupply:
    """A kind of node: its patterns, or, in bulk, the cost of every kind alone."""

    gpu_type: str
    free: int
    patterns: tuple[Pattern, ...] = ()
    alone: tuple[int | None, ...] = ()

    @property
    def bulk(self) -> bool:
        """Whether segments are counted by their GPUs alone."""
        return bool(self.alone)


@dataclass(frozen=True)
class NodeProgram:
    """The data of the program. ``leaves[l][v]`` is the nodes of kind v under leaf l."""

    kinds_gpus: tuple[int, ...]
    supplies: tuple[NodeSupply, ...]
    leaves: tuple[tuple[int, ...], ...]
    replicas: tuple[ReplicaArcs, ...]

    def merged(self) -> NodeProgram:
        """All nodes under one leaf: a relaxation, and a far smaller program."""
        whole = tuple(sum(counts) for counts in zip(*self.leaves, strict=True))
        return replace(self, leaves=(whole,))

    def thinned(self, segments: int) -> NodeProgram:
        """Without patterns of more segments."""
        supplies = tuple(
            replace(s, patterns=tuple(p for p in s.patterns if p.segments <= segments))
            for s in self.supplies
        )
        return replace(self, supplies=supplies)


@dataclass(frozen=True)
class NodePlan:
    """A solution: nodes per (leaf, kind, pattern or kind of segment), arcs per leaf."""

    nodes: dict[tuple[int, int, int], int]
    arcs: dict[tuple[int, int, int, int], int]
    cost: int
    segments: int


@dataclass
class _Build:
    program: NodeProgram
    model: CpModel
    y: dict[tuple[int, int, int], Any] = field(default_factory=dict)
    z: dict[tuple[int, int, int, int], Any] = field(default_factory=dict)

    def variables(self) -> None:
        for leaf, counts in enumerate(self.program.leaves):
            for v, supply in enumerate(self.program.supplies):
                if counts[v]:
                    self._supply(leaf, v, supply, counts[v])
            for r, replica in enumerate(self.program.replicas):
                for a, arc in enumerate(replica.arcs):
                    self._arc(leaf, r, a, arc)
        if self.torn:
            for r, replica in enumerate(self.program.replicas):
                for a, arc in enumerate(replica.arcs):
                    if arc.kind is None:
                        self._arc(self.torn, r, a, arc)

    @property
    def torn(self) -> int:
        """The leaf that stages over several leaves lie under; 0 where there is one."""
        leaves = len(self.program.leaves)
        return leaves if leaves > 1 else 0

    def _supply(self, leaf: int, v: int, supply: NodeSupply, count: int) -> None:
        if supply.bulk:
            for k, cost in enumerate(supply.alone):
                if cost is not None:
                    most = count * (supply.free // self.program.kinds_gpus[k])
                    self.y[leaf, v, k] = self._int(most)
            return
        own = []
        for p in range(len(supply.patterns)):
            own.append(self._int(count))
            self.y[leaf, v, p] = own[-1]
        self.model.add(_sum(own) == count)

    def _arc(self, leaf: int, r: int, a: int, arc: Arc) -> None:
        count = self.program.replicas[r].count
        for where, hop in enumerate(arc.hop_ns):
            alone = where == ACROSS and len(self.program.leaves) == 1
            first = arc.start == 0 and where != BESIDE
            # one side of the hop lies under one leaf: some pair of ranks crosses
            near = self.torn and leaf == self.torn and where == BESIDE and arc.start
            if hop is not None and not alone and not first and not near:
                self.z[leaf, r, a, where] = self._int(count)

    def _int(self, most: int) -> Any:
        return self.model.new_int_var(0, most, "")

    def flows(self) -> None:
        for r, replica in enumerate(self.program.replicas):
            starts = [
                z
                for (_, s, a, _), z in self.z.items()
                if s == r and replica.arcs[a].start == 0
            ]
            self.model.add(_sum(starts) == replica.count)
            for boundary in range(1, replica.stages):
                self._boundary(r, boundary)

    def _boundary(self, r: int, boundary: int) -> None:
        """What ends here under a leaf goes on there, or under another leaf."""
        arcs = self.program.replicas[r].arcs
        gone: list[Any] = []
        come: list[Any] = []
        for leaf in range(max(1, self.torn + 1)):
            ended: list[Any] = []
            spread: list[Any] = []
            beside: list[Any] = []
            on_spread: list[Any] = []
            for (at, s, a, where), z in self.z.items():
                if (at, s) != (leaf, r):
                    continue
                if arcs[a].end == boundary:
                    ended.append(z)
                    if arcs[a].kind is None:
                        spread.append(z)
                if arcs[a].start == boundary:
                    (beside, on_spread, come)[where].append(z)
            left = self._int(self.program.replicas[r].count)
            gone.append(left)
            self.model.add(_sum(ended) == _sum(beside) + _sum(on_spread) + left)
            if on_spread:
                self.model.add(_sum(on_spread) <= _sum(spread))
        self.model.add(_sum(gone) == _sum(come))

    def supply(self) -> None:
        for leaf in range(len(self.program.leaves)):
            for kind in range(len(self.program.kinds_gpus)):
                asked = [
                    z
                    for (at, r, a, _), z in self.z.items()
                    if at == leaf and self.program.replicas[r].arcs[a].kind == kind
                ]
                if asked:
                    self.model.add(_sum(asked) <= self._offered(leaf, kind))
            self._bulk(leaf)
            self._loose([leaf])
        if self.torn:
            self._loose([*range(len(self.program.leaves)), self.torn])

    def _offered(self, leaf: int, kind: int) -> Any:
        found, weights = [], []
        for (at, v, p), y in self.y.items():
            supply = self.program.supplies[v]
            count = (
                (p == kind) if supply.bulk else dict(supply.patterns[p].parts).get(kind)
            )
            if at == leaf and count:
                found.append(y)
                weights.append(int(count))
        return _weighted(found, weights)

    def _bulk(self, leaf: int) -> None:
        for v, supply in enumerate(self.program.supplies):
            count = self.program.leaves[leaf][v]
            if not supply.bulk or not count:
                continue
            sizes = self.program.kinds_gpus
            own = [
                (k, self.y[leaf, v, k])
                for k in range(len(sizes))
                if (leaf, v, k) in self.y
            ]
            ys, used = [y for _, y in own], [sizes[k] for k, _ in own]
            self.model.add(_weighted(ys, used) <= count * supply.free)
            big = [y for k, y in own if 2 * sizes[k] > supply.free]
            self.model.add(_sum(big) <= count)

    def _loose(self, leaves: Sequence[int]) -> None:
        """Spread stages take what is left over, of their type and of all types."""
        spread = [
            (self.program.replicas[r].arcs[a], z)
            for (at, r, a, _), z in self.z.items()
            if at in leaves and self.program.replicas[r].arcs[a].kind is None
        ]
        for kind in sorted({arc.gpu_type for arc, _ in spread}, key=str):
            own = [(arc, z) for arc, z in spread if kind in (None, arc.gpu_type)]
            asked = _weighted([z for _, z in own], [arc.gpus for arc, _ in own])
            left = [self._left_over(x, kind) for x in leaves if x != self.torn or not x]
            self.model.add(asked <= _sum(left))

    def _left_over(self, leaf: int, gpu_type: str | None) -> Any:
        found, weights, fixed = [], [], 0
        for v, supply in enumerate(self.program.supplies):
            if gpu_type in (None, supply.gpu_type) and supply.bulk:
                fixed += self.program.leaves[leaf][v] * supply.free
        for (at, v, p), y in self.y.items():
            supply = self.program.supplies[v]
            if at != leaf or gpu_type not in (None, supply.gpu_type):
                continue
            found.append(y)
            bulk = supply.bulk
            weights.append(
                -self.program.kinds_gpus[p] if bulk else supply.patterns[p].loose
            )
        return _weighted(found, weights) + fixed

    def cost(self) -> Any:
        terms, weights = [], []
        for (_, v, p), y in self.y.items():
            supply = self.program.supplies[v]
            terms.append(y)
            cost = supply.alone[p] if supply.bulk else supply.patterns[p].cost
            weights.append(cost or 0)
        for (leaf, r, a, where), z in self.z.items():
            terms.append(z)
            weights.append(self.arc_cost(leaf, r, a, where))
        return _weighted(terms, weights)

    def arc_cost(self, leaf: int, r: int, a: int, where: int) -> int:
        """The hop into an arc, and the stage where it is spread."""
        arc = self.program.replicas[r].arcs[a]
        torn = self.torn and leaf == self.torn
        return (arc.hop_ns[where] or 0) + (arc.torn_ns if torn else arc.cost_ns)

    def spread(self) -> list[Any]:
        """Arcs of stages on several nodes."""
        arcs = (
            (self.program.replicas[r].arcs[a], z) for (_, r, a, _), z in self.z.items()
        )
        return [z for arc, z in arcs if arc.kind is None]

    def segments(self) -> Any:
        arcs = [
            (self.program.replicas[r].arcs[a], z) for (_, r, a, _), z in self.z.items()
        ]
        return _weighted([z for _, z in arcs], [arc.nodes for arc, _ in arcs])


def _sum(terms: Sequence[Any]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.sum([*terms])


def _weighted(terms: Sequence[Any], weights: Sequence[int]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum([*terms], [*weights])


Goal = Callable[[_Build], Any]


def cheapest(_build: _Build) -> Any:
    """Goal: link cost."""
    return _build.cost()


def fewest_segments(_build: _Build) -> Any:
    """Goal: nodes touched, summed over replicas."""
    return _build.segments()


def solve_nodes(
    program: NodeProgram,
    limits: Limits,
    goal: Goal | None = cheapest,
    max_cost: int | None = None,
    max_segments: int | None = None,
    spread: bool = False,
) -> tuple[EngineRun, NodePlan | None]:
    """Optimise one goal (None: any solution) with the earlier goals capped.

    ``spread``: at least one stage lies on several nodes.
    """
    from ortools.sat.python import cp_model

    build = _Build(program, cp_model.CpModel())
    build.variables()
    build.flows()
    build.supply()
    if max_cost is not None:
        build.model.add(build.cost() <= max_cost)
    if max_segments is not None:
        build.model.add(build.segments() <= max_segments)
    if spread:
        build.model.add(_sum(build.spread()) >= 1)
    if goal is not None:
        build.model.minimize(goal(build))
    done = run(build.model, limits)
    return done, _read(build, done) if done.found else None


def _read(build: _Build, done: EngineRun) -> NodePlan:
    nodes = {key: done.value(y) for key, y in build.y.items() if done.value(y)}
    arcs = {key: done.value(z) for key, z in build.z.items() if done.value(z)}
    program, cost, segments = build.program, 0, 0
    for (_, v, p), count in nodes.items():
        supply = program.supplies[v]
        own = supply.alone[p] if supply.bulk else supply.patterns[p].cost
        cost += count * (own or 0)
    for (leaf, r, a, where), count in arcs.items():
        cost += count * build.arc_cost(leaf, r, a, where)
        segments += count * program.replicas[r].arcs[a].nodes
    return NodePlan(nodes, arcs, cost, segments)
