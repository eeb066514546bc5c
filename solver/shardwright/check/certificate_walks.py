"""Lower bounds on the price of a replica, in integers, plain Python.

Prices are in 10^-6 mtok/s, mu in tenths of these per ns: sums are scaled by 10.
docs/formulation.md section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from shardwright.check.certificate_tables import (
    FIRST,
    LAST,
    MIDDLE,
    ONLY,
    PointRows,
    UnitRow,
    most_layers,
)

SCALE = 10
NONE = 1 << 200
"""The price where nothing fits."""

Prices = Sequence[tuple[int, ...]]
"""[type][z]: price of a segment; [type][0] is 0."""


def lower_bound(rows: PointRows, prices: Prices, theta: int, mu: int, walk: int) -> int:
    """min over designs with q T <= theta of price + mu (S - theta), from below."""
    caps = [_caps(rows, unit, theta) for unit in rows.units]
    if rows.layers == 1:
        costs = [_share(prices[u.kind], u.gpus) for u in rows.units]
        found = _alone(rows, costs, caps, mu)
    else:
        found = (_by_layers, _linear, _segments)[walk](rows, prices, caps, mu)
    return NONE if found >= NONE else found - mu * theta


def _caps(rows: PointRows, unit: UnitRow, theta: int) -> tuple[int, ...]:
    stage, each = theta // rows.micro_batches, unit.layer_ns
    return tuple(
        most_layers(most, stage - fixed, each)
        for most, fixed in zip(unit.most, unit.stage_ns, strict=True)
    )


@lru_cache(maxsize=4096)
def _share(prices: tuple[int, ...], gpus: int) -> int:
    """The least that a unit pays for its share of any segment, rounded down."""
    return min(SCALE * p * gpus // z for z, p in enumerate(prices) if z >= gpus)


def _alone(
    rows: PointRows, costs: Sequence[int], caps: Sequence[Sequence[int]], mu: int
) -> int:
    """Least cost of a replica of one stage."""
    return min(
        (
            cost + mu * (unit.layer_ns * rows.layers + unit.stage_ns[ONLY])
            for unit, cost, cap in zip(rows.units, costs, caps, strict=True)
            if cap[ONLY] >= rows.layers
        ),
        default=NONE,
    )


def _by_layers(
    rows: PointRows, prices: Prices, caps: Sequence[Sequence[int]], mu: int
) -> int:
    """Each layer costs at least what the cheapest middle stage costs per layer."""
    costs = [_share(prices[u.kind], u.gpus) for u in rows.units]
    units = list(zip(rows.units, costs, caps, strict=True))
    single = _alone(rows, costs, caps, mu)

    def stage(unit: UnitRow, cost: int, role: int, n: int) -> int:
        return cost + mu * (unit.layer_ns * n + unit.stage_ns[role])

    top = rows.layers - 1
    each = [
        stage(u, c, MIDDLE, min(cap[MIDDLE], top)) // min(cap[MIDDLE], top)
        for u, c, cap in units
        if cap[MIDDLE] >= 1
    ]
    ends = []
    per_layer = min(each, default=None)
    for role in (FIRST, LAST):
        options = [
            stage(u, c, role, n) - (per_layer or 0) * n
            for u, c, cap in units
            if cap[role] >= 1
            for n in (1, min(cap[role], top))
        ]
        if not options:
            return single
        ends.append(min(options))
    if per_layer is None:
        most = [max(cap[role] for cap in caps) for role in (FIRST, LAST)]
        if sum(most) < rows.layers:
            return single
        per_layer = 0
    hop = min(rows.inside)
    many = per_layer * rows.layers + sum(ends) + mu * (rows.back + hop)
    return min(single, many)


def _stage_lists(
    rows: PointRows,
    costs: Sequence[int],
    caps: Sequence[Sequence[int]],
    mu: int,
    role: int,
) -> list[list[int]]:
    """[type][n]: least cost of a stage of n layers, [.][0] is NONE."""
    found = [[NONE] * (rows.layers + 1) for _ in rows.inside]
    for unit, cost, cap in zip(rows.units, costs, caps, strict=True):
        row, fixed = found[unit.kind], cost + mu * unit.stage_ns[role]
        slope = mu * unit.layer_ns
        for n in range(1, min(cap[role], rows.layers) + 1):
            value = fixed + slope * n
            if value < row[n]:
                row[n] = value
    return found


def _linear(
    rows: PointRows, prices: Prices, caps: Sequence[Sequence[int]], mu: int
) -> int:
    """A shortest path over (layers, type); hops inside a type stay on an island."""
    costs = [_share(prices[u.kind], u.gpus) for u in rows.units]
    length, kinds = rows.layers, range(len(rows.inside))
    middle = _stage_lists(rows, costs, caps, mu, MIDDLE)
    first = _stage_lists(rows, costs, caps, mu, FIRST)
    last = _stage_lists(rows, costs, caps, mu, LAST)
    hop = [
        [mu * (rows.inside[a] if a == b else rows.hop[a][b]) for b in kinds]
        for a in kinds
    ]
    windows = [
        max((n for n in range(length + 1) if row[n] < NONE), default=0)
        for row in middle
    ]
    arrived: list[list[int]] = [[NONE] for _ in kinds]
    for layer in range(1, length):
        ends = []
        for k in kinds:
            best, before, stage = first[k][layer], arrived[k], middle[k]
            low = max(1, layer - windows[k])
            if low < layer:
                through = min(
                    map(int.__add__, before[low:layer], stage[layer - low : 0 : -1])
                )
                best = min(best, through)
            ends.append(best)
        for k in kinds:
            arrived[k].append(min(ends[a] + hop[a][k] for a in kinds))
    many = min(
        arrived[k][layer] + last[k][length - layer]
        for k in kinds
        for layer in range(1, length)
    )
    return min(_alone(rows, costs, caps, mu), many + mu * rows.back)


def _segments(
    rows: PointRows, prices: Prices, caps: Sequence[Sequence[int]], mu: int
) -> int:
    """A shortest path over (layers, type, GPUs of the open segment)."""
    length, kinds = rows.layers, range(len(rows.inside))
    table = [[SCALE * p for p in row] for row in prices]
    n_units = len(rows.units)

    def lists(role: int) -> list[list[int]]:
        found = []
        for unit, cap in zip(rows.units, caps, strict=True):
            row = [NONE] * (length + 1)
            for n in range(1, min(cap[role], length) + 1):
                row[n] = mu * (unit.layer_ns * n + unit.stage_ns[role])
            found.append(row)
        return found

    middle, first, last = lists(MIDDLE), lists(FIRST), lists(LAST)
    windows = [min(cap[MIDDLE], length) for cap in caps]
    # source[k][f]: f GPUs open on an island of type k, hop to the next stage paid;
    # f = 0: between segments
    source = [[[NONE] for _ in table[k]] for k in kinds]
    for layer in range(1, length):
        ends = [[NONE] * len(table[k]) for k in kinds]
        for u in range(n_units):
            unit = rows.units[u]
            k, t, stage, window = unit.kind, unit.gpus, middle[u], windows[u]
            mine = ends[k]
            mine[t] = min(mine[t], first[u][layer])
            low = max(1, layer - window)
            if low >= layer:
                continue
            steps = stage[layer - low : 0 : -1]
            for f in range(len(table[k]) - t):
                through = min(map(int.__add__, source[k][f][low:layer], steps))
                if through < mine[f + t]:
                    mine[f + t] = through
        closed = [
            min(
                (e + p for e, p in zip(ends[k][1:], table[k][1:], strict=True)),
                default=NONE,
            )
            for k in kinds
        ]
        for k in kinds:
            source[k][0].append(min(closed[a] + mu * rows.hop[a][k] for a in kinds))
            for f in range(1, len(table[k])):
                source[k][f].append(ends[k][f] + mu * rows.inside[k])
    many = NONE
    for u, unit in enumerate(rows.units):
        k, t = unit.kind, unit.gpus
        for f in range(len(table[k]) - t):
            path = min(
                source[k][f][layer] + last[u][length - layer]
                for layer in range(1, length)
            )
            many = min(many, path + table[k][f + t])
    own = [table[unit.kind][unit.gpus] for unit in rows.units]
    return min(_alone(rows, own, caps, mu), many + mu * rows.back)
