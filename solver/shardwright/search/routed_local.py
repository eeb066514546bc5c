"""Local search on named placements, judged by the exact flow over all links.

For what counts of nodes cannot see: which node sits at which end of a slow or missing
link. Moves: two nodes change places, a node is put between two boundaries, a boundary
moves by a layer. A move that costs no flow is kept, and one that costs a little at
first (threshold accepting). Seeded; ends after so many moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from shardwright.problem.routed import RoutedProblem
from shardwright.search.base import SearchLimits
from shardwright.search.routed_flow import RoutedFlow
from shardwright.search.routed_routes import Caps, capped_flow

_LOSS = 0.1
"""Share of the flow that a move may cost at first; nothing at the end."""

Intervals = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Found:
    """A placement and the flow that was computed for it."""

    placement: Mapping[int, tuple[int, int]]
    flow: RoutedFlow

    @property
    def value(self) -> int:
        """utok/s."""
        return self.flow.value


NOTHING = Found({}, RoutedFlow(()))


def improve(
    problem: RoutedProblem,
    found: Found,
    caps: Caps,
    limits: SearchLimits,
    moves: int,
    enough: int,
) -> Found:
    """The best placement met; ends early at ``enough`` utok/s or at a limit."""
    rng, best = Random(limits.seed), found
    current, value = dict(found.placement), found.value
    for i in range(moves):
        if best.value >= enough or limits.stop() or limits.remaining_s() <= 0:
            break
        changed = _moved(problem, current, rng)
        if changed is None:
            continue
        flow = capped_flow(problem, changed, caps)
        if flow.value >= value * (1 - _LOSS * (1 - i / moves)):
            current, value = changed, flow.value
            if value > best.value:
                best = Found(dict(changed), flow)
    return best


def _moved(
    problem: RoutedProblem, placement: Intervals, rng: Random
) -> Intervals | None:
    move = rng.choice((_swapped, _swapped, _replaced, _replaced, _shifted))
    return move(problem, placement, rng)


def _swapped(
    problem: RoutedProblem, placement: Intervals, rng: Random
) -> Intervals | None:
    a, b = rng.sample(range(len(problem.ids)), 2) if len(problem.ids) > 1 else (0, 0)
    changed = dict(placement)
    for node, interval in ((a, placement.get(b)), (b, placement.get(a))):
        if interval is None:
            changed.pop(node, None)
        elif _fits(problem, node, interval[1]):
            changed[node] = interval
        else:
            return None
    return changed if changed != placement else None


def _replaced(
    problem: RoutedProblem, placement: Intervals, rng: Random
) -> Intervals | None:
    """A node between two boundaries of the others."""
    node = rng.randrange(len(problem.ids))
    marks = {0, problem.layers}
    for other, (start, held) in placement.items():
        if other != node:
            marks |= {start, start + held}
    start = rng.choice(sorted(marks - {problem.layers}))
    ends = [e for e in sorted(marks) if e > start and _fits(problem, node, e - start)]
    if not ends:
        return None
    return {**placement, node: (start, rng.choice(ends) - start)}


def _shifted(
    problem: RoutedProblem, placement: Intervals, rng: Random
) -> Intervals | None:
    """A boundary moves by a layer, with every node that ends or begins there."""
    marks = {s for s, _ in placement.values()} | {s + k for s, k in placement.values()}
    inner = sorted(marks - {0, problem.layers})
    if not inner:
        return None
    mark, by = rng.choice(inner), rng.choice((-1, 1))
    changed = {}
    for node, (start, held) in placement.items():
        begin = start + by if start == mark else start
        end = start + held + (by if start + held == mark else 0)
        if not _fits(problem, node, end - begin):
            return None
        changed[node] = (begin, end - begin)
    return changed


def _fits(problem: RoutedProblem, node: int, held: int) -> bool:
    return 1 <= held <= problem.classes[problem.class_of[node]].most_layers
