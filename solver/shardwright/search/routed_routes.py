"""The most flow of a placement whose every route keeps the caps.

Without caps that bind this is a plain maximum flow. Else routes are priced: a linear
program over known routes, and the cheapest further route under both caps by labels
(price, stages, milliseconds). Flows are rounded to whole utok/s and cut where they do
not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.formulations.lp.routed_routes import Resource, route_flows
from shardwright.problem.routed import SINK, SOURCE, Placement, RoutedProblem
from shardwright.search.routed_flow import RoutedFlow, max_flow, usable_links

_ROUNDS = 200
_LABELS = 2_000
"""Labels kept at a node; beyond it the search for routes is no longer exhaustive,
which costs flow and never validity."""


@dataclass(frozen=True)
class Caps:
    """Most stages and milliseconds of a route; None: no cap."""

    stages: int | None = None
    latency_ms: float | None = None

    def allow(
        self, problem: RoutedProblem, placement: Placement, nodes: tuple[int, ...]
    ) -> bool:
        """Whether a route keeps both."""
        if self.stages is not None and len(nodes) > self.stages:
            return False
        if self.latency_ms is None:
            return True
        return problem.latency_ms(nodes, placement) <= self.latency_ms


def capped_flow(problem: RoutedProblem, placement: Placement, caps: Caps) -> RoutedFlow:
    """The most flow under the caps, to the rounding of its routes."""
    free = max_flow(problem, placement)
    kept = [r for r in free.routes if caps.allow(problem, placement, r[0])]
    if len(kept) == len(free.routes):
        return free
    priced = _priced(problem, placement, caps, [nodes for nodes, _ in kept])
    return max(priced, RoutedFlow(tuple(kept)), key=lambda flow: flow.value)


def _priced(
    problem: RoutedProblem,
    placement: Placement,
    caps: Caps,
    routes: list[tuple[int, ...]],
) -> RoutedFlow:
    links = usable_links(problem, placement)
    rates: dict[Resource, int] = dict(links)
    rates |= {n: problem.rate(n, held) for n, (_, held) in placement.items()}
    prices: dict[Resource, float] = {}
    flows: tuple[float, ...] = ()
    for _ in range(_ROUNDS):
        if routes:
            found = route_flows([_resources(route) for route in routes], rates)
            flows, prices = found.flows, dict(found.prices)
        new = _cheapest(problem, placement, caps, list(links), prices)
        if new is None or new in routes:
            break
        routes.append(new)
    flows += (0.0,) * (len(routes) - len(flows))
    return _whole(routes, flows, rates)


def _resources(route: tuple[int, ...]) -> list[Resource]:
    return [*route, *zip((SOURCE, *route), (*route, SINK), strict=True)]


@dataclass(frozen=True)
class _Label:
    """A way from the coordinator to a node, that node included."""

    price: float
    stages: int
    latency_ms: float
    nodes: tuple[int, ...]

    def beats(self, other: _Label) -> bool:
        fewer = self.stages <= other.stages and self.latency_ms <= other.latency_ms
        return self.price <= other.price + 1e-12 and fewer


def _cheapest(
    problem: RoutedProblem,
    placement: Placement,
    caps: Caps,
    links: list[tuple[int, int]],
    prices: dict[Resource, float],
) -> tuple[int, ...] | None:
    """The route of least price below 1 that keeps the caps."""
    labels: dict[int, list[_Label]] = {SOURCE: [_Label(0.0, 0, 0.0, ())]}
    start = {node: at for node, (at, _) in placement.items()} | {SOURCE: -1}
    for a, b in sorted(links, key=lambda hop: start[hop[0]]):
        for label in labels.get(a, ()):
            price = label.price + prices.get((a, b), 0.0) + prices.get(b, 0.0)
            nodes = label.nodes if b == SINK else (*label.nodes, b)
            # every node sits in one place, so a prefix's time is its own
            spent = label.latency_ms + _step_ms(problem, placement, a, b)
            new = _Label(price, len(nodes), spent, nodes)
            over = caps.stages is not None and new.stages > caps.stages
            late = caps.latency_ms is not None and spent > caps.latency_ms
            if price < 1 - 1e-9 and not over and not late:
                _keep(labels.setdefault(b, []), new)
    ended = [x for x in labels.get(SINK, ()) if caps.allow(problem, placement, x.nodes)]
    return min(ended, key=lambda x: x.price).nodes if ended else None


def _step_ms(problem: RoutedProblem, placement: Placement, a: int, b: int) -> float:
    if b == SINK:
        return problem.link_ms[a, b]
    table = problem.stage_ms[problem.class_of[b]]
    return problem.link_ms[a, b] + (table[placement[b][1] - 1] if table else 0.0)


def _keep(labels: list[_Label], new: _Label) -> None:
    if any(label.beats(new) for label in labels) or len(labels) > _LABELS:
        return
    labels[:] = [label for label in labels if not new.beats(label)] + [new]


def _whole(
    routes: list[tuple[int, ...]], flows: tuple[float, ...], rates: dict[Resource, int]
) -> RoutedFlow:
    """Whole utok/s: the nearest, or what the nodes and links still have."""
    left, kept = dict(rates), []
    for route, flow in sorted(zip(routes, flows, strict=True), key=lambda x: -x[1]):
        resources = _resources(route)
        whole = min(round(flow), *(left[resource] for resource in resources))
        for resource in resources:
            left[resource] -= whole
        if whole > 0:
            kept.append((route, whole))
    return RoutedFlow(tuple(kept))
