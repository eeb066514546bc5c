"""From counted segments to GPUs: nodes take patterns, replicas take segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shardwright.formulations.cpsat.placement_nodes import (
    BESIDE,
    ON_SPREAD,
    Arc,
    NodePlan,
    ReplicaArcs,
)
from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic
from shardwright.search.placement_align import Aligner, Stages
from shardwright.search.placement_order import rank_order
from shardwright.search.placement_program import NodeCompiler
from shardwright.search.placement_types import Named

Route = tuple[tuple[Arc, int], ...]
"""Arcs of one replica and the leaf of each (-1: any)."""

_ANY = -1


def routes(
    replica: ReplicaArcs, index: int, plan: NodePlan, merged: bool
) -> list[Route]:
    """The flow of one kind of replica, taken apart."""
    left = Counter({k[:1] + k[2:]: n for k, n in plan.arcs.items() if k[1] == index})
    found = []
    for _ in range(replica.count):
        route: list[tuple[Arc, int]] = []
        at, leaf, spread = 0, _ANY, False
        while at < replica.stages:
            key = _next(replica, left, at, leaf, spread)
            left[key] -= 1
            leaf, arc = key[0], replica.arcs[key[1]]
            route.append((arc, _ANY if merged else leaf))
            at, spread = arc.end, arc.kind is None
        found.append(tuple(route))
    return found


def _next(
    replica: ReplicaArcs,
    left: Counter[tuple[int, int, int]],
    at: int,
    leaf: int,
    spread: bool,
) -> tuple[int, int, int]:
    """The arc to go on with: on the same nodes, beside, else under another leaf."""
    options = [k for k, n in left.items() if n and replica.arcs[k[1]].start == at]
    if at == 0:
        return min(options)

    def rank(key: tuple[int, int, int]) -> tuple[int, tuple[int, int, int]]:
        where = key[2]
        if where == ON_SPREAD:
            return (0 if spread and key[0] == leaf else 9), key
        if where == BESIDE:
            return (1 if key[0] == leaf else 9), key
        return 2, key

    return min(options, key=rank)


@dataclass
class Namer:
    """Names the GPUs of one plan. ``fill``: leaf by leaf, else spread over leaves."""

    compiler: NodeCompiler
    plan: NodePlan
    merged: bool
    fill: bool = False
    free: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    rooms: dict[int, list[int]] = field(default_factory=dict)
    open: dict[tuple[int, int], list[Stages]] = field(default_factory=dict)
    budget: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    held: Counter[int] = field(default_factory=Counter)
    taken: set[Gpu] = field(default_factory=set)
    loose: dict[int, dict[int, list[Gpu]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        topology, compiler = self.compiler.case.topology, self.compiler
        number = {leaf: i for i, leaf in enumerate(compiler.leaves)}
        for v, nodes in enumerate(compiler.node_kinds.values()):
            for node in nodes:
                leaf = number[topology.leaf(node)]
                self.free.setdefault((leaf, v), []).append(node)
                self.rooms[node] = [*topology.nodes[node].usable]
        self.budget.update(self.plan.nodes)

    # -- all replicas --

    def name(self) -> Named | None:
        """GPUs of every replica in rank order; None when the segments do not fit."""
        program, kinds = self.compiler.program, self.compiler.replica_kinds
        named: dict[ReplicaTraffic, list[Stages]] = {}
        work, aligner = [], Aligner(self.compiler.case)
        for r, (kind, arcs) in enumerate(zip(kinds, program.replicas, strict=True)):
            named[kind] = []
            work += [(kind, route) for route in routes(arcs, r, self.plan, self.merged)]
        work.sort(key=lambda item: (-len(item[1]), -item[0].gpus))
        parts = [(kind, route, self._segments(route)) for kind, route in work]
        if any(p is None for _, _, p in parts):
            return None
        for kind, route, part in parts:
            stages = self._spread(kind, route, part or {})
            if stages is None:
                return None
            runs = [(arc.start, arc.end) for arc, _ in route]
            named[kind].append(aligner.aligned(kind, stages, runs))
        return self._ordered(named)

    def _ordered(self, named: dict[ReplicaTraffic, list[Stages]]) -> Named:
        case = self.compiler.case
        queues = {kind: iter(found) for kind, found in named.items()}
        return tuple(
            rank_order(case.costs, replica, next(queues[replica]))
            for replica in case.traffic.replicas
        )

    # -- segments on one node --

    def _segments(self, route: Route) -> dict[int, tuple[Gpu, ...]] | None:
        """GPUs by stage of every arc that lies on one node."""
        asked = [(arc, leaf) for arc, leaf in route if arc.kind is not None]
        if not asked:
            return {}
        home = self._home([arc for arc, _ in asked]) if self.merged else _ANY
        found: dict[int, tuple[Gpu, ...]] = {}
        last: tuple[Gpu, ...] = ()
        for arc, leaf in asked:
            stages = self._claim(arc, leaf if leaf != _ANY else home, last)
            if stages is None:
                return None
            found.update(zip(range(arc.start, arc.end), stages, strict=True))
            last = stages[-1]
        touched = {
            self.compiler.case.topology.leaf(g[0]) for s in found.values() for g in s
        }
        self.held.update(self.compiler.leaves.index(leaf) for leaf in touched)
        return found

    def _home(self, arcs: Sequence[Arc]) -> int:
        """A leaf that holds all segments of a replica; else the one that holds most."""
        asked = Counter(arc.kind for arc in arcs if arc.kind is not None)
        leaves = range(len(self.compiler.leaves))
        order = leaves if self.fill else sorted(leaves, key=lambda i: (self.held[i], i))
        best, most = _ANY, 0
        for leaf in order:
            held = self._holds(leaf, asked)
            if held == asked.total():
                return leaf
            if held > most:
                best, most = leaf, held
        return best

    def _holds(self, leaf: int, asked: Counter[int]) -> int:
        """How many of the segments could be had under a leaf."""
        missing = Counter(asked)
        for kind in asked:
            missing[kind] -= min(missing[kind], len(self.open.get((leaf, kind), ())))
        for v, supply in enumerate(self.compiler.program.supplies):
            nodes = self.free.get((leaf, v), [])
            if supply.bulk:
                self._hold_in_bulk(nodes, missing)
                continue
            room = len(nodes)
            for p in self._offers(leaf, v):
                each = dict(supply.patterns[p].parts)
                count = min(room, self.budget[self._at(leaf), v, p])
                while count and any(missing[k] > 0 for k in each):
                    missing -= Counter(each)
                    count, room = count - 1, room - 1
        return asked.total() - (+missing).total()

    def _hold_in_bulk(self, nodes: Sequence[int], missing: Counter[int]) -> None:
        rooms = [len(self.rooms[node]) for node in nodes]
        sizes = self.compiler.program.kinds_gpus
        for kind in sorted(+missing, key=lambda k: -sizes[k]):
            for i, room in enumerate(rooms):
                fit = min(missing[kind], room // sizes[kind])
                missing[kind] -= fit
                rooms[i] -= fit * sizes[kind]

    def _at(self, leaf: int) -> int:
        return 0 if self.merged else leaf

    def _offers(self, leaf: int, v: int) -> list[int]:
        """Patterns that nodes of a kind may still take, most segments first."""
        patterns = self.compiler.program.supplies[v].patterns
        at = self._at(leaf)
        offered = [p for p in range(len(patterns)) if self.budget[at, v, p] > 0]
        return sorted(offered, key=lambda p: -patterns[p].segments)

    def _claim(self, arc: Arc, leaf: int, last: tuple[Gpu, ...]) -> Stages | None:
        """A segment under the leaf if there is one, else anywhere."""
        assert arc.kind is not None
        others = [i for i in range(len(self.compiler.leaves)) if i != leaf]
        if last:
            topology = self.compiler.case.topology
            near = self.compiler.leaves
            others.sort(
                key=lambda i: _distance(topology.nodes[last[0][0]].switches, near[i])
            )
        for at in [leaf, *others] if leaf != _ANY else others:
            stages = self._claim_in(arc.kind, at, last)
            if stages is not None:
                self.taken.update(g for s in stages for g in s)
                return stages
        return None

    def _claim_in(self, kind: int, leaf: int, last: tuple[Gpu, ...]) -> Stages | None:
        held = self.open.setdefault((leaf, kind), [])
        if not held:
            self._open(kind, leaf)
        if held:
            best = min(range(len(held)), key=lambda i: self._strangeness(held[i], last))
            return held.pop(best)
        return self._claim_in_bulk(kind, leaf)

    def _strangeness(self, stages: Stages, last: tuple[Gpu, ...]) -> tuple[int, int]:
        """Ranks whose rail differs from the stage before; a new node."""
        topology = self.compiler.case.topology
        rails = Counter(map(topology.rail, stages[0]))
        rails.subtract(map(topology.rail, last))
        new = not last or stages[0][0][0] != last[0][0]
        return sum(abs(n) for n in rails.values()) if last else 0, int(new)

    def _open(self, kind: int, leaf: int) -> None:
        """Give a free node a pattern with such a segment."""
        for v, supply in enumerate(self.compiler.program.supplies):
            nodes = self.free.get((leaf, v), [])
            if supply.bulk or not nodes:
                continue
            for p in self._offers(leaf, v):
                if kind in dict(supply.patterns[p].parts):
                    self.budget[self._at(leaf), v, p] -= 1
                    self._lay(nodes.pop(0), leaf, v, p)
                    return

    def _lay(self, node: int, leaf: int, v: int, p: int) -> None:
        table, usable = self.compiler.tables[v], self.rooms[node]
        for kind, stages in table.layout(table.patterns[p]):
            gpus = tuple(tuple((node, usable[i]) for i in stage) for stage in stages)
            self.open.setdefault((leaf, kind), []).append(gpus)

    def _claim_in_bulk(self, kind: int, leaf: int) -> Stages | None:
        size = self.compiler.program.kinds_gpus[kind]
        replica = [*self.compiler.segment_kinds][kind]
        for v, supply in enumerate(self.compiler.program.supplies):
            if not supply.bulk or supply.alone[kind] is None:
                continue
            fitting = [
                n for n in self.free.get((leaf, v), []) if len(self.rooms[n]) >= size
            ]
            if fitting:
                node = min(fitting, key=lambda n: len(self.rooms[n]))
                gpus = [(node, g) for g in self.rooms[node][:size]]
                self.rooms[node] = self.rooms[node][size:]
                return tuple(tuple(gpus[cut]) for cut in replica.slices())
        return None

    # -- stages over several nodes --

    def _spread(
        self, kind: ReplicaTraffic, route: Route, part: dict[int, tuple[Gpu, ...]]
    ) -> Stages | None:
        """All stages of a replica: GPUs left over for those that no node holds."""
        stages = dict(part)
        for run in _spread_runs(route):
            near = [g for i in (run[0] - 1, run[-1] + 1) for g in stages.get(i, ())]
            sizes = [kind.stages[i].gpus for i in run]
            types = {kind.stages[i].gpu_type for i in run}
            gpus = self._loose(sum(sizes), near, types)
            if gpus is None:
                return None
            cut = min(
                (_stacked(gpus, sizes), _dealt(gpus, sizes)),
                key=lambda sets: self._run_cost(kind, run, sets),
            )
            stages.update(zip(run, cut, strict=True))
        return tuple(stages[i] for i in range(len(kind.stages)))

    def _run_cost(
        self, kind: ReplicaTraffic, run: Sequence[int], sets: Sequence[tuple[Gpu, ...]]
    ) -> int:
        costs = self.compiler.case.costs
        cost = sum(
            costs.stage(kind.stages[i], s) for i, s in zip(run, sets, strict=True)
        )
        hops = [kind.hops_bytes[i] for i in run[:-1]]
        return cost + sum(map(costs.hop, sets, sets[1:], hops))

    def _loose(
        self, count: int, near: Sequence[Gpu], types: set[str | None]
    ) -> list[Gpu] | None:
        """GPUs left over: under one leaf if possible, on few nodes, near others."""
        topology = self.compiler.case.topology
        only = types - {None}
        if len(only) > 1:
            return None
        left = self._left_over(next(iter(only), None))
        rooms = {leaf: sum(map(len, nodes.values())) for leaf, nodes in left.items()}
        home = {topology.leaf(node) for node, _ in near}
        number = {leaf: i for i, leaf in enumerate(self.compiler.leaves)}

        def rank(leaf: int) -> tuple[bool, bool, int, int]:
            held = 0 if self.fill else self.held[number[leaf]]
            return leaf not in home, rooms[leaf] < count, held, number[leaf]

        order = sorted(left, key=rank)
        whole = [leaf for leaf in order if rooms[leaf] >= count]
        chosen: list[Gpu] = []
        for leaf in whole[:1] or order:
            for gpus in sorted(left[leaf].values(), key=lambda g: (-len(g), g)):
                chosen += gpus[: count - len(chosen)]
            self.held[number[leaf]] += 1
            if len(chosen) == count:
                self._take(chosen)
                return chosen
        return None

    def _left_over(self, gpu_type: str | None) -> dict[int, dict[int, list[Gpu]]]:
        """GPUs that no segment has, by leaf and node; made when first asked for."""
        topology = self.compiler.case.topology
        if not self.loose:
            for gpu in topology.usable:
                if gpu not in self.taken:
                    nodes = self.loose.setdefault(topology.leaf(gpu[0]), {})
                    nodes.setdefault(gpu[0], []).append(gpu)
        if gpu_type is None:
            return self.loose
        found = {}
        for leaf, nodes in self.loose.items():
            own = {n: g for n, g in nodes.items() if self._type(n) == gpu_type}
            if own:
                found[leaf] = own
        return found

    def _type(self, node: int) -> str:
        return self.compiler.case.topology.shape_of(node).gpu_type

    def _take(self, gpus: Sequence[Gpu]) -> None:
        self.taken.update(gpus)
        for node in {node for node, _ in gpus}:
            nodes = self.loose[self.compiler.case.topology.leaf(node)]
            nodes[node] = [gpu for gpu in nodes[node] if gpu not in self.taken]
            if not nodes[node]:
                del nodes[node]


def _distance(switches: Sequence[int], leaf: int) -> int:
    return 0 if leaf in switches else 1


def _spread_runs(route: Route) -> Iterator[list[int]]:
    """Runs of consecutive stages that lie on several nodes each."""
    run: list[int] = []
    for arc, _ in route:
        if arc.kind is None:
            run.append(arc.start)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _stacked(gpus: list[Gpu], sizes: Sequence[int]) -> list[tuple[Gpu, ...]]:
    """One stage after the other, each on as few nodes as the order gives."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [tuple(gpus[a : a + n]) for a, n in zip(starts, sizes, strict=True)]


def _dealt(gpus: list[Gpu], sizes: Sequence[int]) -> list[tuple[Gpu, ...]]:
    """Every stage an equal part of every node, as far as that goes."""
    found: list[list[Gpu]] = [[] for _ in sizes]
    by_node: dict[int, list[Gpu]] = {}
    for gpu in gpus:
        by_node.setdefault(gpu[0], []).append(gpu)
    for node in by_node.values():
        share = -(-len(node) // len(sizes))
        for i in range(len(sizes)):
            room = sizes[i] - len(found[i])
            found[i] += node[i * share : (i + 1) * share][:room]
    given = {g for part in found for g in part}
    rest = [g for g in gpus if g not in given]
    for part, size in zip(found, sizes, strict=True):
        while len(part) < size:
            part.append(rest.pop(0))
    return [tuple(part) for part in found]
