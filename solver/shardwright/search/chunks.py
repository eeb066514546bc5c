"""Points that differ in the prefill chunk alone, for replicas of the same role.

A larger chunk needs more memory and changes nothing else about TPOT, so when the
optimum of the smallest chunk keeps its prefill budget no other chunk can beat it.
Except under memory_imbalance: what a larger chunk adds to every stage evens them out,
so there each chunk is solved for itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from shardwright.problem import Design, PoolRole, Problem


@dataclass(frozen=True)
class ChunkGroups:
    """The points of a problem, grouped by (M, q) and role.

    The iterations of a prefill replica are its chunks, and percentiles depend on the
    chunk: there each point is a group.
    """

    problem: Problem

    @cached_property
    def variants(self) -> dict[int, tuple[int, ...]]:
        """First point of every group -> its points by increasing chunk."""
        groups: dict[tuple[str, int, int, int], list[int]] = defaultdict(list)
        for o, point in enumerate(self.problem.points):
            apart = point.role == "prefill" or self.problem.bounds.targets
            own = point.chunk_tokens if apart else 0
            key = (point.role, point.sequences, point.micro_batches, own)
            groups[key].append(o)
        chunk = [point.chunk_tokens for point in self.problem.points]
        ordered = (sorted(g, key=lambda o: chunk[o]) for g in groups.values())
        return {points[0]: tuple(points) for points in ordered}

    @cached_property
    def by_point(self) -> dict[int, int]:
        """Any point -> the first of its group."""
        return {o: first for first, points in self.variants.items() for o in points}

    @cached_property
    def _by_stages(self) -> dict[tuple[int, PoolRole], list[int]]:
        found: dict[tuple[int, PoolRole], list[int]] = defaultdict(list)
        for o in self.variants:
            for stages in self.problem.stage_counts(o):
                found[stages, self.problem.points[o].role].append(o)
        return found

    def points(self, stages: int, role: PoolRole) -> list[int]:
        """First points at which a replica of the role may have this many stages."""
        return self._by_stages.get((stages, role), [])

    def least_tpot(
        self,
        point: int,
        solve: Callable[[int, bool], Design | None],
        whole: Callable[[Design], Design] = lambda design: design,
    ) -> Design | None:
        """The design of least TPOT over the chunks of a group.

        ``solve(point, prefill)`` ignores the prefill budget when told to; ``whole``
        makes its answer a complete design.
        """
        if self.problem.bounds.memory_imbalance is None:
            free = solve(point, False)
            if free is None:
                return None
            for o in self.variants[point]:
                design = whole(replace(free, point=o))
                if self.problem.design_fits(design):
                    return design
        solved = (solve(o, True) for o in self.variants[point])
        designs = [whole(d) for d in solved if d is not None]
        return min(designs, key=self._order, default=None)

    def least_ttft(self, design: Design) -> Design:
        """The design at the chunk of its group that gives the least TTFT."""
        moved = (
            replace(design, point=o) for o in self.variants[self.by_point[design.point]]
        )
        fitting = [d for d in moved if self.problem.design_fits(d)]
        return min(fitting, key=self._order, default=design)

    def _order(self, design: Design) -> tuple[int, int, int]:
        times = self.problem.figures(design).times
        chunk = self.problem.points[design.point].chunk_tokens
        return times.tpot_ns, times.ttft_ns, chunk
