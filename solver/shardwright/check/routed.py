"""An independent check of a routed result: standard library and documents only.

Rates are cut to 1e-6 tokens/s and compared exactly. The flow is computed again from the
intervals by augmenting paths, the depth and the latency from the routes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.exact import RELATIVE_TOLERANCE, exact
from shardwright.check.report import RuleRow, Violation, at_least, at_most, equal
from shardwright.schema.errors import CheckFailed
from shardwright.schema.result import Status
from shardwright.schema.routed import (
    UTOK,
    Route,
    RoutedInstance,
    RoutedLink,
    RoutedResult,
)

Node = int | str
Link = tuple[Node, Node]
Intervals = Mapping[str, tuple[int, int]]

_UNIT = "tokens/s"


@dataclass(frozen=True)
class RoutedReport:
    """One row per rule instance."""

    rows: tuple[RuleRow, ...]

    @property
    def ok(self) -> bool:
        """True when every rule holds."""
        return all(row.holds for row in self.rows)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every rule instance that does not hold."""
        return tuple(row.violation() for row in self.rows if not row.holds)

    def broken(self) -> tuple[str, ...]:
        """Names of the rules that do not hold, each once."""
        return tuple(dict.fromkeys(row.rule for row in self.rows if not row.holds))

    def raise_if_bad(self) -> None:
        """Raise CheckFailed with every violation unless all rules hold."""
        if not self.ok:
            raise CheckFailed([str(violation) for violation in self.violations])


def check_routed(instance: RoutedInstance, result: RoutedResult) -> RoutedReport:
    """Every rule on the answer and on every point of its front."""
    rows = [*_answer_rows(instance, result)]
    for point in result.front:
        plan = _Plan(instance, point.intervals, point.routes, f"front {point.stages}")
        rows += plan.rows(point.max_flow, point.max_stages, None)
        rows.append(equal("depth", plan.name, "stages claimed", point.stages,
                          plan.stages, "stages"))  # fmt: skip
        rows += _bound_rows(plan.name, point.max_flow, point.bound, point.status)
        rows += plan.latency_rows(point.expected_latency_ms)
    return RoutedReport(tuple(rows))


def _answer_rows(instance: RoutedInstance, result: RoutedResult) -> Iterator[RuleRow]:
    if result.max_flow is None:
        placed = len(result.intervals) + len(result.routes)
        yield equal(
            "status", "answer", "nodes and routes without a flow", placed, 0, ""
        )
        return
    plan = _Plan(instance, result.intervals, result.routes, "answer")
    yield from plan.rows(result.max_flow, result.max_stages, result.max_latency_ms)
    claimed = result.max_depth or 0
    yield equal("depth", "answer", "stages claimed", claimed, plan.stages, "stages")
    hops = result.hop_by_hop_depth or 0
    yield equal(
        "depth", "answer", "stages hop by hop claimed", hops, plan.hops, "stages"
    )
    yield from _bound_rows("answer", result.max_flow, result.bound, result.status)
    yield from plan.latency_rows(result.expected_latency_ms)
    yield from plan.depth_rows({d.stages: d.tokens_per_s for d in result.depths})


def _bound_rows(
    name: str, value: float, bound: float, status: Status
) -> Iterator[RuleRow]:
    yield at_least("bound", name, "bound", exact(bound), exact(value), _UNIT)
    if status is Status.OPTIMAL:
        left, right = exact(bound), exact(value)
        yield equal("status", name, "bound of a proven flow", left, right, _UNIT)


class _Plan:
    """Intervals and routes, evaluated."""

    def __init__(
        self,
        instance: RoutedInstance,
        intervals: Intervals,
        routes: Sequence[Route],
        name: str,
    ) -> None:
        self.name = name
        self.instance, self.routes = instance, routes
        self._nodes = {node.id: node for node in instance.nodes}
        self.held = {int(n): span for n, span in intervals.items() if n.isdecimal()}
        self._links: dict[Link, RoutedLink] = {
            (x.source, x.target): x for x in instance.links
        }

    @property
    def stages(self) -> int:
        """Nodes of the longest route."""
        return max((len(route.nodes) for route in self.routes), default=0)

    @property
    def hops(self) -> int:
        """Longest way through links that some route uses, by start of the nodes."""
        used = {
            hop for r in self.routes for hop in zip(r.nodes, r.nodes[1:], strict=False)
        }
        begins = {n: start for n, (start, _) in self.held.items()}
        depth = {r.nodes[0]: 1 for r in self.routes}
        for a, b in sorted(used, key=lambda hop: begins.get(hop[0], 0)):
            depth[b] = max(depth.get(b, 0), depth.get(a, 0) + 1)
        return max(depth.values(), default=0)

    def rows(
        self, flow: float, stages: int | None, latency_ms: float | None
    ) -> Iterator[RuleRow]:
        """Intervals, routes, loads, the flow and the caps."""
        yield from self._interval_rows()
        if any(n not in self._nodes for n in self.held):
            return
        yield from self._route_rows()
        yield from self._load_rows()
        yield from self._flow_rows(flow, stages is None and latency_ms is None)
        if stages is not None:
            yield at_most("depth", self.name, "longest route", self.stages, stages,
                          "stages")  # fmt: skip
        if latency_ms is not None:
            slowest = max(
                (self._latency(r.nodes) for r in self.routes), default=Fraction()
            )
            # routes are timed in floats where they are searched
            slack = exact(latency_ms) * RELATIVE_TOLERANCE
            yield at_most("latency", self.name, "slowest route", slowest,
                          exact(latency_ms), "ms", allowance=slack)  # fmt: skip

    def _interval_rows(self) -> Iterator[RuleRow]:
        layers, tables = self.instance.num_layers, self.instance.throughput_by_layers
        for node, (start, end) in self.held.items():
            who = f"{self.name}: node {node}"
            known = self._nodes.get(node)
            yield equal(
                "interval", who, "nodes of that id", int(known is not None), 1, ""
            )
            if known is None:
                continue
            most = min(len(tables[known.type]), known.max_layers or layers)
            yield at_least("interval", who, "start", start, 0, "layers")
            yield at_most("interval", who, "end", end, layers, "layers")
            yield at_least("interval", who, "layers held", end - start, 1, "layers")
            yield at_most("memory", who, "layers held", end - start, most, "layers")

    def _route_rows(self) -> Iterator[RuleRow]:
        """Each route covers all layers once, in order, over links that exist."""
        for i, route in enumerate(self.routes):
            who, at, faults = f"{self.name}: route {i}", 0, []
            for node in route.nodes:
                start, end = self.held.get(node, (-1, -1))
                if start != at:
                    faults.append(f"node {node} begins at {start}, not {at}")
                at = end
            if at != self.instance.num_layers:
                faults.append(f"it ends at layer {at}")
            missing = [hop for hop in _hops(route) if hop not in self._links]
            faults += [f"there is no link {a} to {b}" for a, b in missing]
            yield at_most("route", who, "faults", len(faults), 0, "",
                          detail="; ".join(faults))  # fmt: skip

    def _load_rows(self) -> Iterator[RuleRow]:
        """What passes a node or a link is within its rate."""
        nodes: dict[int, int] = {}
        links: dict[Link, int] = {}
        for route in self.routes:
            rate = _utok(route.tokens_per_s)
            for node in route.nodes:
                nodes[node] = nodes.get(node, 0) + rate
            for hop in _hops(route):
                links[hop] = links.get(hop, 0) + rate
        for node, load in nodes.items():
            right = self._rate(node) if node in self.held else 0
            yield _rates("node_rate", f"{self.name}: node {node}", load, right)
        for (a, b), load in links.items():
            link = self._links.get((a, b))
            right = _utok(link.tokens_per_s) if link else 0
            yield _rates("link_rate", f"{self.name}: link {a} to {b}", load, right)

    def _flow_rows(self, flow: float, free: bool) -> Iterator[RuleRow]:
        carried = sum(_utok(route.tokens_per_s) for route in self.routes)
        yield equal("flow", self.name, "flow claimed", exact(flow),
                    Fraction(carried, UTOK), _UNIT)  # fmt: skip
        own = Fraction(self._own_flow(), UTOK)
        if free:
            yield equal("flow", self.name, "flow claimed", exact(flow), own, _UNIT)
        else:
            yield at_most("flow", self.name, "flow claimed", exact(flow), own, _UNIT)

    def latency_rows(self, claimed: float | None) -> Iterator[RuleRow]:
        """The mean over the flow."""
        if claimed is None:
            return
        weights = [_utok(route.tokens_per_s) for route in self.routes]
        times = [self._latency(route.nodes) for route in self.routes]
        total = sum((w * t for w, t in zip(weights, times, strict=True)), Fraction())
        own = total / max(1, sum(weights))
        yield equal("latency", self.name, "expected latency", exact(claimed), own, "ms",
                    allowance=own * RELATIVE_TOLERANCE)  # fmt: skip

    def depth_rows(self, claimed: Mapping[int, float]) -> Iterator[RuleRow]:
        """What flows at each depth."""
        own: dict[int, int] = {}
        for route in self.routes:
            depth = len(route.nodes)
            own[depth] = own.get(depth, 0) + _utok(route.tokens_per_s)
        for depth in sorted({*own, *claimed}):
            said, found = (
                exact(claimed.get(depth, 0.0)),
                Fraction(own.get(depth, 0), UTOK),
            )
            yield equal(
                "depth", self.name, f"flow of {depth} stages", said, found, _UNIT
            )

    def _rate(self, node: int) -> int:
        start, end = self.held[node]
        table = self.instance.throughput_by_layers[self._nodes[node].type]
        return _utok(table[end - start - 1]) if 0 < end - start <= len(table) else 0

    def _latency(self, nodes: Sequence[int]) -> Fraction:
        total = Fraction(0)
        for node in nodes:
            table = self.instance.stage_ms_by_layers.get(self._nodes[node].type)
            start, end = self.held.get(node, (0, 0))
            if table and 0 < end - start <= len(table):
                total += exact(table[end - start - 1])
        ends: list[Node] = ["source", *nodes, "sink"]
        hops = itertools.pairwise(ends)
        return total + sum(
            exact(self._links[h].latency_ms) for h in hops if h in self._links
        )

    def _own_flow(self) -> int:
        """Augmenting paths of fewest hops on the placement's network."""
        room: dict[tuple[Node, str], dict[tuple[Node, str], int]] = {}

        def arc(a: tuple[Node, str], b: tuple[Node, str], rate: int) -> None:
            room.setdefault(a, {})[b] = room.get(a, {}).get(b, 0) + rate
            room.setdefault(b, {}).setdefault(a, 0)

        for node in self.held:
            arc((node, "in"), (node, "out"), self._rate(node))
        for (a, b), link in self._links.items():
            if self._meets(a, b):
                arc((a, "out"), (b, "in"), _utok(link.tokens_per_s))
        return _augmented(room, ("source", "out"), ("sink", "in"))

    def _meets(self, a: Node, b: Node) -> bool:
        """Whether a hop goes on at the layer where it stood."""
        nowhere = (-1, -2)
        end = 0 if a == "source" else self.held.get(_id(a), nowhere)[1]
        if b == "sink":
            return end == self.instance.num_layers
        return end == self.held.get(_id(b), nowhere)[0]


def _augmented(
    room: dict[tuple[Node, str], dict[tuple[Node, str], int]],
    source: tuple[Node, str],
    sink: tuple[Node, str],
) -> int:
    total = 0
    while source in room:
        before: dict[tuple[Node, str], tuple[Node, str]] = {source: source}
        queue = deque([source])
        while queue and sink not in before:
            v = queue.popleft()
            for w, rate in room[v].items():
                if rate and w not in before:
                    before[w] = v
                    queue.append(w)
        if sink not in before:
            break
        path = [sink]
        while path[-1] != source:
            path.append(before[path[-1]])
        hops = list(zip(path[1:], path, strict=False))
        rate = min(room[a][b] for a, b in hops)
        for a, b in hops:
            room[a][b] -= rate
            room[b][a] += rate
        total += rate
    return total


def _hops(route: Route) -> list[Link]:
    ends: list[Node] = ["source", *route.nodes, "sink"]
    return list(itertools.pairwise(ends))


def _id(node: Node) -> int:
    return node if isinstance(node, int) else -1


def _rates(rule: str, who: str, load: int, rate: int) -> RuleRow:
    left, right = Fraction(load, UTOK), Fraction(rate, UTOK)
    return at_most(rule, who, "load", left, right, _UNIT)


def _utok(tokens_per_s: float) -> int:
    return int(exact(tokens_per_s) * UTOK)
