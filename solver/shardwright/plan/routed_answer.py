"""The answer of a routed solve as text: rendering only."""

from __future__ import annotations

from shardwright.plan.tables.text import (
    Cell,
    amount,
    cut,
    grid,
    number,
    pairs,
    percent,
    titled,
    wrapped,
)
from shardwright.schema.routed import FrontPoint, RoutedInstance, RoutedResult

_ROUTES_SHOWN = 12


def routed_text(instance: RoutedInstance, result: RoutedResult) -> str:
    """The flow and its bound first, then the front, the nodes and the routes."""
    blocks = [_head(result), pairs(_facts(instance, result))]
    if result.front:
        blocks.append(_front(instance, result.front))
    if result.max_flow is not None:
        blocks += [_nodes(instance, result), _routes(result)]
    return "\n\n".join(blocks)


def _head(result: RoutedResult) -> str:
    first = f"{result.status}  "
    if result.max_flow is None:
        why = (
            "no route through all layers keeps the caps"
            if result.bound == 0
            else f"no placement was found; the bound is {_bound(result.bound, None)}"
        )
        return wrapped(first, f"{why}, {result.seconds:.2f} s")
    assert result.gap is not None
    bound = _bound(result.bound, result.max_flow)
    return wrapped(
        first,
        f"{_rate(result.max_flow)} tokens/s, bound {bound} "
        f"(gap {percent(result.gap, 3)}), {amount(result.max_depth or 0, 'stage')} at "
        f"most, {result.seconds:.2f} s",
    )


def _facts(instance: RoutedInstance, result: RoutedResult) -> list[tuple[str, str]]:
    types: dict[str, int] = {}
    for node in instance.nodes:
        types[node.type] = types.get(node.type, 0) + 1
    kinds = ", ".join(f"{n} {name}" for name, n in sorted(types.items()))
    model = f"{instance.model}, " if instance.model else ""
    rows = [
        ("instance", f"{instance.name}: {model}{amount(instance.num_layers, 'layer')}"),
        ("nodes", f"{kinds}; {len(result.intervals)} of {len(instance.nodes)} used"),
    ]
    caps = []
    if result.max_stages is not None:
        caps.append(amount(result.max_stages, "stage"))
    if result.max_latency_ms is not None:
        caps.append(f"{number(result.max_latency_ms, 2)} ms")
    if caps:
        rows.append(("caps of a route", " and ".join(caps)))
    if result.max_depth is not None:
        shares = [
            f"{_rate(d.tokens_per_s)} tokens/s in {amount(d.stages, 'stage')}"
            + _timed(d.expected_latency_ms)
            for d in result.depths
        ]
        rows.append(("depth", "; ".join(shares)))
    if result.hop_by_hop_depth and result.hop_by_hop_depth != result.max_depth:
        stages = amount(result.hop_by_hop_depth, "stage")
        rows.append(("", f"up to {stages} if every node chooses the next by itself"))
    latency = result.expected_latency_ms
    told = "not in the file" if latency is None else f"{number(latency, 2)} ms a pass"
    return [*rows, ("latency", told)]


def _timed(latency_ms: float | None) -> str:
    return "" if latency_ms is None else f", {number(latency_ms, 2)} ms a pass"


def _front(instance: RoutedInstance, front: tuple[FrontPoint, ...]) -> str:
    timed = instance.has_latency
    rows: list[list[Cell]] = [
        [
            str(p.max_stages),
            _rate(p.max_flow),
            _bound(p.bound, p.max_flow),
            percent(p.gap, 3),
            *([number(p.expected_latency_ms or 0.0, 2)] if timed else []),
            str(len(p.intervals)),
            p.status.value,
        ]
        for p in front
    ]
    headers = ["stages\nat most", "most flow\ntokens/s", "proven\nbound", "\ngap"]
    headers += ["ms a pass"] if timed else []
    headers += ["nodes\nused", "\nstatus"]
    align = "r" * (len(headers) - 1) + "l"
    return titled("Most flow by depth (fewer stages: lower latency)",
                  grid(headers, rows, align))  # fmt: skip


def _nodes(instance: RoutedInstance, result: RoutedResult) -> str:
    kinds = {str(node.id): node.type for node in instance.nodes}
    loads: dict[str, float] = {}
    for route in result.routes:
        for name in map(str, route.nodes):
            loads[name] = loads.get(name, 0.0) + route.tokens_per_s
    rows: list[list[Cell]] = []
    for node, (start, end) in result.intervals.items():
        most = instance.throughput_by_layers[kinds[node]][end - start - 1]
        load = loads.get(node, 0.0)
        shown = [_rate(load), _rate(most), percent(load / most, 1)]
        rows.append([f"[{start}, {end})", str(end - start), node, kinds[node], *shown])
    headers = ["layers", "held", "node", "type", "flow", "rate", "used"]
    return titled("Nodes by layer", grid(headers, rows, "lrrlrrr"))


def _routes(result: RoutedResult) -> str:
    lines = [
        wrapped(
            f"{_rate(route.tokens_per_s):>14}  ",
            f"{' > '.join(map(str, route.nodes))} ({len(route.nodes)})",
        )
        for route in result.routes[:_ROUTES_SHOWN]
    ]
    more = len(result.routes) - len(lines)
    if more > 0:
        lines.append(f"{'':>14}  and {amount(more, 'further route')} (--json has all)")
    return titled("Routes: tokens/s, nodes in order (stages)", "\n".join(lines))


def _rate(tokens_per_s: float) -> str:
    return cut(tokens_per_s, 3)


def _bound(bound: float, value: float | None) -> str:
    """Rounded up, unless it is the value itself."""
    return _rate(bound) if bound == value else _rate(bound + 0.000999)
