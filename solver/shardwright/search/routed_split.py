"""Large clusters: disjoint parts solved apart; their flows add up.

A block has few nodes, so one chain of blocks is no wider than a few nodes. Nodes are
dealt out to parts of equal shape, region by region and class by class.
"""

from __future__ import annotations

from shardwright.problem.routed import SINK, SOURCE, RoutedProblem
from shardwright.problem.routed_groups import groups_of, regions_at
from shardwright.search.base import SearchLimits
from shardwright.search.routed_bounds import work_bound
from shardwright.search.routed_chain import ChainSearch
from shardwright.search.routed_local import NOTHING, Found
from shardwright.search.routed_routes import Caps, capped_flow

PART_NODES = 24


def joined(
    problem: RoutedProblem, caps: Caps, limits: SearchLimits, best: Found
) -> Found:
    """The best of ``best`` and of two to a few parts put side by side."""
    most = max(1, -(-len(problem.ids) // PART_NODES))
    for parts in sorted({most, most + 1, 2 * most} - {1}):
        if len(problem.ids) < 2 * parts or len(problem.ids) <= PART_NODES:
            continue
        limits.poll()
        found = _side_by_side(problem, parts, caps, limits)
        if found.value > best.value:
            best = found
    return best


def _side_by_side(
    problem: RoutedProblem, parts: int, caps: Caps, limits: SearchLimits
) -> Found:
    dealt: list[list[int]] = [[] for _ in range(parts)]
    turn = 0
    for group in groups_of(problem, regions_at(problem, work_bound(problem, None))):
        for node in group.nodes:
            dealt[turn % parts].append(node)
            turn += 1
    placement: dict[int, tuple[int, int]] = {}
    known: dict[tuple[int, ...], dict[int, tuple[int, int]]] = {}
    for nodes in dealt:
        shape = tuple(problem.class_of[n] for n in nodes)
        if shape not in known or _has_slow_links(problem):
            known[shape] = _solve_part(problem, nodes, caps, limits)
        placement |= {nodes[i]: interval for i, interval in known[shape].items()}
    return Found(placement, capped_flow(problem, placement, caps))


def _solve_part(
    problem: RoutedProblem, nodes: list[int], caps: Caps, limits: SearchLimits
) -> dict[int, tuple[int, int]]:
    limits.poll()
    part = _part(problem, nodes)
    upper = work_bound(part, caps.stages)
    if not upper:
        return {}
    found = ChainSearch(part, upper, limits).best(caps.stages, upper, NOTHING)
    return dict(found.placement)


def _has_slow_links(problem: RoutedProblem) -> bool:
    """Whether which nodes a part has matters beyond their classes."""
    return len(set(regions_at(problem, work_bound(problem, None)))) > 1


def _part(problem: RoutedProblem, nodes: list[int]) -> RoutedProblem:
    """The problem of some nodes alone, numbered anew."""
    index = {node: i for i, node in enumerate(nodes)} | {SOURCE: SOURCE, SINK: SINK}
    pairs = {(a, b) for a, b in problem.links if a in index and b in index}
    return RoutedProblem(
        layers=problem.layers,
        ids=tuple(problem.ids[n] for n in nodes),
        classes=problem.classes,
        class_of=tuple(problem.class_of[n] for n in nodes),
        links={(index[a], index[b]): problem.links[a, b] for a, b in pairs},
        link_ms={(index[a], index[b]): problem.link_ms[a, b] for a, b in pairs},
        stage_ms=problem.stage_ms,
    )
