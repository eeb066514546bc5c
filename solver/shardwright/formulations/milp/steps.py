"""Intervals of TPOT: how a rate of M 10^12 / TPOT enters a linear program exactly.

Inside an interval [a, b] the integer rate is at most floor(rate(a)), and, the real
rate being convex, at most its chord from a to b. Both are valid for every TPOT in
the interval, and exact at a. A claim above the true rate of the plan found splits the
interval at the plan's own TPOT, where the next program is exact; each split removes
that claim, and there are finitely many TPOTs.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from shardwright.formulations.shape import Shape

_FIRST_STEPS = 4


@dataclass
class Steps:
    """Starts of the intervals of every operating point, and the last end."""

    starts: list[list[int]]
    ends: list[int]
    sequences: list[int]
    splits: int = field(default=0)

    @classmethod
    def of(cls, shape: Shape) -> Steps:
        """A few intervals of equal ratio between the floor and ceiling of TPOT, and
        one at the TPOT of every single stage, where a rate is most often exact."""
        points = shape.problem.points
        limit, top = shape.problem.bounds.tpot_ns, shape.tpot_ceiling_ns
        top = max(1, top if limit is None else min(top, limit))
        floors = [min(shape.tpot_floor_ns(o), top) for o in range(len(points))]
        singles = [
            [t for t in _single_stages(shape, o) if floors[o] <= t <= top]
            for o in range(len(points))
        ]
        return cls(
            [
                sorted({*_geometric(low, top), *known})
                for low, known in zip(floors, singles, strict=True)
            ],
            [top] * len(points),
            [point.sequences for point in points],
        )

    def intervals(self, point: int) -> list[tuple[int, int]]:
        """[a, b] of every interval."""
        starts = self.starts[point]
        ends = [*(s - 1 for s in starts[1:]), self.ends[point]]
        return list(zip(starts, ends, strict=True))

    def rate_at(self, point: int, tpot_ns: int) -> int:
        """floor(M 10^12 / TPOT)."""
        return self.sequences[point] * 10**12 // tpot_ns

    def chord(self, point: int, interval: tuple[int, int]) -> tuple[float, float]:
        """(intercept, slope): the real rate on [a, b] is <= intercept - slope TPOT."""
        a, b = interval
        work = self.sequences[point] * 10**12
        return work / a + work / b, work / a / b

    def split(self, point: int, tpot_ns: int) -> bool:
        """Begin an interval at a TPOT; False when one begins there already."""
        starts = self.starts[point]
        position = bisect_right(starts, tpot_ns)
        if position and starts[position - 1] == tpot_ns:
            return False
        starts.insert(position, tpot_ns)
        self.splits += 1
        return True


def _single_stages(shape: Shape, point: int) -> list[int]:
    """TPOT q tau of the replicas that are one stage."""
    q = shape.problem.points[point].micro_batches
    decode, layers = shape.tables.decode[point], shape.problem.layers
    units = sorted({a.unit for a in shape.arcs if a[:2] == (0, layers)})
    return [q * decode[u][0][layers] for u in units]


def _geometric(low: int, high: int) -> list[int]:
    ratio = high / low
    found = {int(low * ratio ** (k / _FIRST_STEPS)) for k in range(_FIRST_STEPS)}
    return sorted({low, *found})
