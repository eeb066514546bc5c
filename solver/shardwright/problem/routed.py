"""The routed problem in integers: node classes, rates in micro-tokens/s, links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from shardwright.schema.routed import UTOK, RoutedInstance

SOURCE, SINK = -1, -2
"""The coordinator, which requests leave and come back to."""

Placement = Mapping[int, tuple[int, int]]
"""Index of a node -> (start, layers); a node left out is unused."""


@dataclass(frozen=True)
class NodeClass:
    """Interchangeable but for their links: ``rates[k-1]`` with k layers, utok/s."""

    name: str
    rates: tuple[int, ...]

    @property
    def most_layers(self) -> int:
        """Layers that fit."""
        return len(self.rates)


@dataclass(frozen=True)
class RoutedProblem:
    """Rates and links cut to whole micro-tokens/s; nodes by index, not by id."""

    layers: int
    ids: tuple[int, ...]
    classes: tuple[NodeClass, ...]
    class_of: tuple[int, ...]
    links: Mapping[tuple[int, int], int]
    link_ms: Mapping[tuple[int, int], float]
    stage_ms: tuple[tuple[float, ...], ...]

    def rate(self, node: int, layers: int) -> int:
        """utok/s of a node that holds so many layers."""
        return self.classes[self.class_of[node]].rates[layers - 1]

    def latency_ms(self, nodes: tuple[int, ...], placement: Placement) -> float:
        """Time of one pass along a route: its links and its stages."""
        hops = zip((SOURCE, *nodes), (*nodes, SINK), strict=True)
        stages = (self.stage_ms[self.class_of[n]] for n in nodes)
        held = (placement[n][1] for n in nodes)
        passes = (t[k - 1] if t else 0.0 for t, k in zip(stages, held, strict=True))
        return sum(self.link_ms[hop] for hop in hops) + sum(passes)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Nodes of every class."""
        return tuple(self.class_of.count(c) for c in range(len(self.classes)))

    @cached_property
    def most_flow(self) -> int:
        """What all nodes together carry with their best number of layers."""
        return sum(max(self.classes[c].rates) for c in self.class_of)


def compile_routed(instance: RoutedInstance) -> RoutedProblem:
    """The integers of a validated instance; every rate is rounded down."""
    kinds = [(n.type, n.max_layers or instance.num_layers) for n in instance.nodes]
    tables = instance.throughput_by_layers
    kinds = [(t, min(m, len(tables[t]), instance.num_layers)) for t, m in kinds]
    distinct = sorted(set(kinds), key=lambda kind: (kind[0], -kind[1]))
    ids = tuple(node.id for node in instance.nodes)
    ends: dict[int | str, int] = {node: i for i, node in enumerate(ids)}
    ends |= {"source": SOURCE, "sink": SINK}
    named = {(ends[x.source], ends[x.target]): x for x in instance.links}
    return RoutedProblem(
        layers=instance.num_layers,
        ids=ids,
        classes=tuple(
            NodeClass(t, tuple(utok(rate) for rate in tables[t][:m]))
            for t, m in distinct
        ),
        class_of=tuple(distinct.index(kind) for kind in kinds),
        links={pair: utok(link.tokens_per_s) for pair, link in named.items()},
        link_ms={pair: link.latency_ms for pair, link in named.items()},
        stage_ms=tuple(instance.stage_ms_by_layers.get(t, ()) for t, _ in distinct),
    )


def utok(tokens_per_s: float) -> int:
    """Whole micro-tokens/s of the decimal as written, rounded down."""
    return int(Fraction(repr(tokens_per_s)) * UTOK)
