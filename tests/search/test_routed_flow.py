"""Flow and routes of given placements: two algorithms, and caps by enumeration."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.search.routed_cases import Placement, instance_of, small

from shardwright.check.routed import _Plan
from shardwright.problem.routed import SINK, SOURCE, RoutedProblem, compile_routed
from shardwright.search.routed_flow import RoutedFlow, max_flow, usable_links
from shardwright.search.routed_routes import Caps, capped_flow


def some_placement(problem: RoutedProblem, rng: Random) -> Placement:
    placed: Placement = {}
    for node in range(len(problem.ids)):
        most = problem.classes[problem.class_of[node]].most_layers
        held = rng.randint(1, most)
        placed[node] = (rng.randint(0, problem.layers - held), held)
    return placed


def routes(problem: RoutedProblem, placement: Placement) -> Iterator[tuple[int, ...]]:
    links = usable_links(problem, placement)

    def onward(way: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for a, b in links:
            if a == (way[-1] if way else SOURCE):
                if b == SINK:
                    yield way
                else:
                    yield from onward((*way, b))

    yield from onward(())


def test_flow_equals_the_checkers() -> None:
    rng, carried = Random(2), 0
    for _ in range(400):
        instance = instance_of(small(rng))
        problem = compile_routed(instance)
        placement = some_placement(problem, rng)
        found = max_flow(problem, placement)
        spans = {str(problem.ids[n]): (s, s + k) for n, (s, k) in placement.items()}
        assert found.value == _Plan(instance, spans, (), "test")._own_flow()
        carried += found.value > 0
    print(f"{carried} of 400 placements carry something")
    assert carried > 40


def within_rates(
    problem: RoutedProblem, placement: Placement, flow: RoutedFlow
) -> bool:
    loads: dict[object, int] = {}
    for nodes, rate in flow.routes:
        hops = zip((SOURCE, *nodes), (*nodes, SINK), strict=True)
        for resource in [*nodes, *hops]:
            loads[resource] = loads.get(resource, 0) + rate
    rates = dict(usable_links(problem, placement))
    held = {n: problem.rate(n, k) for n, (_, k) in placement.items()}
    return all(load <= {**rates, **held}[r] for r, load in loads.items())


def test_capped_flow_keeps_caps_and_rates() -> None:
    rng, binding = Random(4), 0
    for _ in range(300):
        problem = compile_routed(instance_of(small(rng)))
        placement = some_placement(problem, rng)
        caps = Caps(rng.choice((1, 2, 3)), rng.choice((None, 2.0, 4.0)))
        allowed = [r for r in routes(problem, placement)
                   if caps.allow(problem, placement, r)]  # fmt: skip
        flow = capped_flow(problem, placement, caps)
        assert within_rates(problem, placement, flow)
        assert {nodes for nodes, _ in flow.routes} <= set(allowed)
        free = max_flow(problem, placement).value
        assert flow.value <= free
        assert (flow.value > 0) == bool(allowed)
        binding += flow.value < free
    print(f"the caps bind in {binding} of 300")
    assert binding > 10


def test_routes_change_lanes_to_keep_a_cap() -> None:
    """Two lanes over 12 layers, cut in two halves: 2 + 2 or 3 + 3 nodes, 5 at most."""
    halves = [(i, (6 * half + 3 * i, 3)) for half in (0, 1) for i in (0, 1)]
    wide = {n: span for n, (_, span) in enumerate(halves)}
    narrow = {4 + i: (2 * i, 2) for i in range(6)}
    ids = range(10)
    problem = compile_routed(instance_of({
        "name": "lanes",
        "num_layers": 12,
        "throughput_by_layers": {"A": [9.0, 7.0, 5.0], "B": [4.0, 3.0]},
        "nodes": [{"id": i, "type": "A" if i < 4 else "B"} for i in ids],
        "links": [
            *[["source", i, 99.0] for i in ids],
            *[[i, "sink", 99.0] for i in ids],
            *[[a, b, 99.0] for a in ids for b in ids if a != b],
        ],
    }))  # fmt: skip
    placement = {**wide, **narrow}
    flows = [capped_flow(problem, placement, Caps(n)).value for n in (3, 4, 5, 6)]
    assert flows == [0, 5_000_000, 8_000_000, 8_000_000]


def test_depth_hop_by_hop_sees_ways_that_no_route_takes() -> None:
    flow = RoutedFlow((((0, 1, 4), 5), ((2, 1, 3), 5), ((2, 3), 1), ((3, 4), 1)))
    assert flow.stages == 3
    assert flow.hop_by_hop_stages == 4
