"""Counts: the least TPOT of a replica of mixed units whose layers are all alike.

Which unit hosts the first and the last stage and the order of the islands are
enumerated; layers are then only counted. Under a TPOT cap every unit takes between
one layer and its cap per stage, and S is least when the cheapest units are filled
first, so a bisection on TPOT is exact as long as the prefill budget does not bind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from shardwright.cost.lengths import ceil_div
from shardwright.cost.memory import FIRST, LAST, MIDDLE
from shardwright.formulations.dp.chain import most_layers
from shardwright.problem import Design, Problem, StageChoice, crossings_of

PartUnits = tuple[int, tuple[int, ...]]
"""Class of an island and the units (sorted, with repeats) that lie on it."""


class PrefillBinds(Exception):
    """The prefill budget decides: counting is not exact, a solver has to choose.

    ``tpot_ns`` is a lower bound on what the solver can reach.
    """

    def __init__(self, tpot_ns: int) -> None:
        self.tpot_ns = tpot_ns
        super().__init__(f"prefill binds from {tpot_ns} ns")


@dataclass(frozen=True)
class Group:
    """``count`` stages of one unit in one role; costs per layer and per stage."""

    part: int
    unit: int
    count: int
    layer_ns: int
    stage_ns: int
    prefill_layer_ns: int
    prefill_stage_ns: int
    memory_layers: int

    def cap(self, stage_ns: int) -> int:
        """Most layers of one stage within a stage time."""
        room = stage_ns - self.stage_ns
        return most_layers(room, self.layer_ns, self.memory_layers)


@dataclass(frozen=True)
class Route:
    """Order of the parts, the end stages' units, and the hop times that follow."""

    order: tuple[int, ...]
    first: tuple[int, int]
    last: tuple[int, int]
    hops_ns: int
    prefill_hops_ns: int


def applicable(problem: Problem) -> bool:
    """Whether counting covers every rule of this problem."""
    b = problem.bounds
    return (
        problem.uniform
        and b.memory_imbalance is None
        and b.compute_imbalance is None
        and b.communication_share is None
        and b.split is None
    )


def least_tpot_design(
    problem: Problem, parts: tuple[PartUnits, ...], point: int
) -> tuple[Design, tuple[int, ...]] | None:
    """The design of least TPOT on ``parts``, and the part of every stage.

    None if no design fits.

    Raises PrefillBinds when the prefill budget rules out the counted optimum.
    """
    best: tuple[int, Route, list[Group], list[int]] | None = None
    undecided: int | None = None
    for route in _routes(problem, parts, point):
        groups = _groups(problem, parts, point, route)
        try:
            found = _least_tpot(problem, point, route, groups)
        except PrefillBinds as binds:
            undecided = min(undecided or binds.tpot_ns, binds.tpot_ns)
            continue
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], route, groups, found[1])
    if undecided is not None and (best is None or undecided < best[0]):
        raise PrefillBinds(undecided)
    if best is None:
        return None
    return _design(parts, point, best[1], best[2], best[3])


def _routes(
    problem: Problem, parts: tuple[PartUnits, ...], point: int
) -> Iterator[Route]:
    """Non-dominated routes: every choice of end units, hops as short as can be.

    A hop between islands is never shorter than one inside, so each island is visited
    once, except that both ends may lie on one.
    """
    ends = [(i, u) for i, (_, units) in enumerate(parts) for u in sorted(set(units))]
    for first in ends:
        for last in ends:
            if not _ends_exist(parts, first, last):
                continue
            seen: list[tuple[int, int]] = []
            for route in sorted(
                _orders(problem, parts, point, first, last),
                key=lambda r: (r.hops_ns, r.prefill_hops_ns),
            ):
                pair = (route.hops_ns, route.prefill_hops_ns)
                if all(pair[1] < s[1] for s in seen):
                    seen.append(pair)
                    yield route


def _ends_exist(
    parts: tuple[PartUnits, ...], first: tuple[int, int], last: tuple[int, int]
) -> bool:
    if first[0] != last[0]:
        return True
    units = list(parts[first[0]][1])
    units.remove(first[1])
    return last[1] in units


def _orders(
    problem: Problem,
    parts: tuple[PartUnits, ...],
    point: int,
    first: tuple[int, int],
    last: tuple[int, int],
) -> list[Route]:
    between = [i for i in range(len(parts)) if i not in (first[0], last[0])]
    if first[0] == last[0] and not between:
        orders: set[tuple[int, ...]] = {(first[0],)}
    else:
        orders = {(first[0], *middle, last[0]) for middle in _distinct(parts, between)}
    t = problem.tables
    routes = []
    for order in sorted(orders):
        classes = [parts[i][0] for i in order]
        pairs = list(pairwise(classes))
        inside = _inside_hops(parts, first[0] == last[0] and len(order) > 1, first[0])
        decode = sum(int(t.hop_inter[point, a, b]) for a, b in pairs)
        prefill = sum(int(t.prefill_hop_inter[point, a, b]) for a, b in pairs)
        decode += sum(n * int(t.hop_intra[point, k]) for k, n in inside)
        prefill += sum(n * int(t.prefill_hop_intra[point, k]) for k, n in inside)
        routes.append(Route(order, first, last, decode, prefill))
    return routes


def _distinct(
    parts: tuple[PartUnits, ...], between: list[int]
) -> Iterator[tuple[int, ...]]:
    """Orders of parts that differ in their classes: hops know nothing else."""
    if not between:
        yield ()
    for k in sorted({parts[i][0] for i in between}):
        head = next(i for i in between if parts[i][0] == k)
        rest = [i for i in between if i != head]
        for tail in _distinct(parts, rest):
            yield (head, *tail)


def _inside_hops(
    parts: tuple[PartUnits, ...], returns: bool, home: int
) -> list[tuple[int, int]]:
    """(class, hops inside the island) of every part."""
    return [
        (k, len(units) - 1 - int(returns and i == home))
        for i, (k, units) in enumerate(parts)
    ]


def _groups(
    problem: Problem, parts: tuple[PartUnits, ...], point: int, route: Route
) -> list[Group]:
    """First stage, middle stages per part and unit, last stage."""
    groups = [_group(problem, point, *route.first, 1, FIRST)]
    for i, (_, units) in enumerate(parts):
        for unit in sorted(set(units)):
            taken = ((i, unit) == route.first) + ((i, unit) == route.last)
            count = units.count(unit) - taken
            if count:
                groups.append(_group(problem, point, i, unit, count, MIDDLE))
    groups.append(_group(problem, point, *route.last, 1, LAST))
    return groups


def _group(
    problem: Problem, point: int, part: int, unit: int, count: int, role: int
) -> Group:
    t, kind = problem.tables, problem.layer_kinds[0]
    layers = problem.layers
    if problem.bounds.memory_fits:
        capacity = problem.classes[problem.units[unit].gpu_class].capacity_bytes
        for row in problem.memory_rows:
            room = capacity - int(row.role[point, unit, role])
            layers = min(
                layers, most_layers(room, int(row.layer[point, unit, kind]), layers)
            )
    return Group(
        part,
        unit,
        count,
        int(t.decode_layer[point, unit, kind]),
        int(t.decode_role[point, unit, role]),
        int(t.prefill_layer[point, unit, kind]),
        int(t.prefill_role[point, unit, role]),
        layers,
    )


def _least_tpot(
    problem: Problem, point: int, route: Route, groups: list[Group]
) -> tuple[int, list[int]] | None:
    """Least TPOT of a route and the layers of every group."""
    high = _highest_tpot(problem, point, route, groups)
    if _fill(problem, point, route, groups, high) is None:
        return None
    low = 1
    while low < high:
        middle = (low + high) // 2
        if _fill(problem, point, route, groups, middle) is None:
            low = middle + 1
        else:
            high = middle
    layers = _fill(problem, point, route, groups, low)
    assert layers is not None
    budget = problem.prefill_budget_ns(point, low)
    if budget is None or _prefill_ns(problem, point, route, groups, layers) <= budget:
        return low, layers
    if _least_prefill_sum(problem, route, groups) > budget:
        return None
    raise PrefillBinds(low)


def _highest_tpot(
    problem: Problem, point: int, route: Route, groups: list[Group]
) -> int:
    limit = problem.tpot_limit_ns(point)
    if limit is not None:
        return limit
    worst = max(g.layer_ns for g in groups) * problem.layers
    total = worst + sum(g.stage_ns * g.count for g in groups)
    q = problem.points[point].micro_batches
    return q * total + route.hops_ns + problem.tables.return_ns


def _fill(
    problem: Problem, point: int, route: Route, groups: list[Group], tpot_ns: int
) -> list[int] | None:
    """Layers per group with T <= tpot/q and least S, or None if S > tpot."""
    stage_ns = tpot_ns // problem.points[point].micro_batches
    caps = [g.cap(stage_ns) for g in groups]
    if min(caps) < 1:
        return None
    layers = [g.count for g in groups]
    left = problem.layers - sum(layers)
    if left < 0:
        return None
    for i in sorted(range(len(groups)), key=lambda i: groups[i].layer_ns):
        more = min(left, groups[i].count * caps[i] - layers[i])
        layers[i] += more
        left -= more
    loop = route.hops_ns + problem.tables.return_ns
    loop += sum(
        g.layer_ns * n + g.stage_ns * g.count
        for g, n in zip(groups, layers, strict=True)
    )
    return layers if left == 0 and loop <= tpot_ns else None


def _prefill_ns(
    problem: Problem, point: int, route: Route, groups: list[Group], layers: list[int]
) -> int:
    pairs = list(zip(groups, layers, strict=True))
    total = sum(g.prefill_layer_ns * n + g.prefill_stage_ns * g.count for g, n in pairs)
    largest = max(
        g.prefill_layer_ns * ceil_div(n, g.count) + g.prefill_stage_ns for g, n in pairs
    )
    repeats = problem.points[point].chunk_count - 1
    return total + route.prefill_hops_ns + repeats * largest


def _least_prefill_sum(problem: Problem, route: Route, groups: list[Group]) -> int:
    """A lower bound on the prefill latency of any split on this route."""
    layers = [g.count for g in groups]
    left = problem.layers - sum(layers)
    for i in sorted(range(len(groups)), key=lambda i: groups[i].prefill_layer_ns):
        more = min(left, groups[i].count * groups[i].memory_layers - layers[i])
        layers[i] += max(more, 0)
        left -= max(more, 0)
    total = sum(
        g.prefill_layer_ns * n + g.prefill_stage_ns * g.count
        for g, n in zip(groups, layers, strict=True)
    )
    return total + route.prefill_hops_ns


def _design(
    parts: tuple[PartUnits, ...],
    point: int,
    route: Route,
    groups: list[Group],
    layers: list[int],
) -> tuple[Design, tuple[int, ...]]:
    """Lay the groups out along the route, middle layers spread evenly."""
    middle: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(parts))}
    for group, total in zip(groups[1:-1], layers[1:-1], strict=True):
        share, more = divmod(total, group.count)
        middle[group.part] += [
            (group.unit, share + int(i < more)) for i in range(group.count)
        ]
    visits = [(i, list(middle[i])) for i in route.order]
    if len(route.order) > 1 and route.first[0] == route.last[0]:
        visits[-1] = (route.last[0], [])
    visits[0][1].insert(0, (route.first[1], layers[0]))
    visits[-1][1].append((route.last[1], layers[-1]))
    laid = [(part, unit, count) for part, run in visits for unit, count in run]
    homes = tuple(part for part, _, _ in laid)
    ends = list(accumulate(count for _, _, count in laid))
    stages = tuple(
        StageChoice(unit, end - count, end)
        for (_, unit, count), end in zip(laid, ends, strict=True)
    )
    return Design(point, stages, crossings_of(homes)), homes
