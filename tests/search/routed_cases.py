"""Small routed instances, and every placement of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

from shardwright.ingest.validate import validate
from shardwright.problem.routed import RoutedProblem
from shardwright.schema.routed import RoutedInstance

Placement = dict[int, tuple[int, int]]


def instance_of(document: dict[str, Any]) -> RoutedInstance:
    """A document as the loader reads it."""
    return validate(RoutedInstance, document, "test")


def small(rng: Random) -> dict[str, Any]:
    """Three or four nodes of at most two types; links may be slow or missing."""
    layers = rng.randint(2, 5)
    types = {name: _rates(rng, layers) for name in ("A", "B")[: rng.randint(1, 2)]}
    count = 4 if layers <= 3 else 3
    nodes = [{"id": 7 * i, "type": rng.choice(sorted(types))} for i in range(count)]
    ids = [node["id"] for node in nodes]
    slow = rng.random() < 0.6
    region = {i: rng.randint(0, 1) for i in ids}
    links: list[list[Any]] = [["source", i, 1000.0] for i in ids]
    links += [[i, "sink", 1000.0] for i in ids]
    for a, b in product(ids, ids):
        if a != b and rng.random() < 0.95:
            near = not slow or region[a] == region[b]
            rate = 1000.0 if near else rng.choice((5.0, 10.5, 20.0))
            links.append([a, b, rate, rng.choice((1.0, 2.5))])
    return {
        "name": "small",
        "num_layers": layers,
        "throughput_by_layers": types,
        "nodes": nodes,
        "links": links,
    }


def _rates(rng: Random, layers: int) -> list[float]:
    """Falling on the whole, but not always."""
    most = rng.randint(1, layers)
    return [round(rng.uniform(0.7, 1.3) * 40 / k, 6) for k in range(1, most + 1)]


def placements(problem: RoutedProblem) -> Iterator[Placement]:
    """Every node at every interval, or nowhere."""
    choices: list[list[tuple[int, int] | None]] = []
    for node in range(len(problem.ids)):
        most = problem.classes[problem.class_of[node]].most_layers
        spans = [
            (start, held)
            for held in range(1, most + 1)
            for start in range(problem.layers - held + 1)
        ]
        choices.append([None, *spans])
    for chosen in product(*choices):
        yield {i: span for i, span in enumerate(chosen) if span is not None}
