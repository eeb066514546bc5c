"""Nodes by class and region, where a region's links carry a given flow.

Two nodes that no chain of links of at least ``flow`` joins lie in different regions:
one link alone can never carry all the flow from one region to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.problem.routed import SINK, SOURCE, RoutedProblem


@dataclass(frozen=True)
class Group:
    """Nodes of one class in one region, by index; rates in utok/s by layers held."""

    region: int
    rates: tuple[int, ...]
    nodes: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)


def regions_at(problem: RoutedProblem, flow: int) -> tuple[int, ...]:
    """The region of every node: components of the links of at least ``flow``."""
    leader = list(range(len(problem.ids)))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for (a, b), rate in problem.links.items():
        if rate >= flow and SOURCE not in (a, b) and SINK not in (a, b):
            leader[find(a)] = find(b)
    roots = [find(node) for node in range(len(problem.ids))]
    order = list(dict.fromkeys(roots))
    return tuple(order.index(root) for root in roots)


def groups_of(problem: RoutedProblem, regions: tuple[int, ...]) -> tuple[Group, ...]:
    """Groups ordered by region and class."""
    return tuple(_groups(problem, regions))


def _groups(problem: RoutedProblem, regions: tuple[int, ...]) -> Iterator[Group]:
    pairs = list(zip(regions, problem.class_of, strict=True))
    for region, kind in sorted(set(pairs)):
        nodes = tuple(i for i, pair in enumerate(pairs) if pair == (region, kind))
        yield Group(region, problem.classes[kind].rates, nodes)
