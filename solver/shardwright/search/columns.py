"""The column pool: every (composition, operating point), exact or bounded.

For one composition and point the design of least TPOT within the rules is the best
for every goal, because rate = M / TPOT while GPUs and cost are given. The best column
of every chain of a single unit is exact at once; all others start with a lower bound
on TPOT and are solved when the fleet program first picks them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from shardwright.cost.law import rate_mtok_per_s
from shardwright.formulations.cpsat.arcs import ReplicaArcs
from shardwright.formulations.cpsat.patterns import Column
from shardwright.formulations.dp import counts
from shardwright.formulations.dp.relaxation import Compositions, tpot_lower_bounds
from shardwright.problem import (
    Design,
    IntArray,
    Problem,
    Signature,
    StageChoice,
    crossings_of,
)
from shardwright.schema.result import Status
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.chains import ChainPricer, undominated
from shardwright.search.chunks import ChunkGroups
from shardwright.search.compositions import Composition, compositions, run_lengths

_POLL_EVERY = 64
_BLOCK = 20_000


@dataclass(frozen=True)
class Entry:
    """One column: ``design`` is None while only ``tpot_ns`` is bounded below.

    ``homes`` is the part of the composition that every stage lies on.
    """

    composition: Composition
    point: int
    tpot_ns: int
    ttft_ns: int
    rate_mtok_per_s: int
    design: Design | None
    homes: tuple[int, ...] = ()


@dataclass
class ColumnPool:
    """Columns by signature, each list by falling rate (``chains.undominated``).

    When not ``complete``, columns that touch more islands than they need are left
    out: the best fleet over the pool may then miss the optimum, and only the program
    without patterns bounds it.
    """

    problem: Problem
    limits: SearchLimits
    by_signature: dict[Signature, list[Entry]] = field(default_factory=dict)
    pending: list[Composition] = field(default_factory=list)
    solved: int = 0
    complete: bool = True

    @classmethod
    def build(cls, problem: Problem, limits: SearchLimits) -> ColumnPool:
        """The columns of a single unit; ``add_mixed`` brings the others."""
        pool = cls(problem, limits)
        found: dict[Signature, list[Entry]] = defaultdict(list)
        listed, pool.complete = compositions(problem)
        for i, composition in enumerate(listed):
            if i % _POLL_EVERY == 0:
                limits.poll()
            if composition.single_unit is None:
                pool.pending.append(composition)
            else:
                found[composition.signature] += pool._single(composition)
        pool._take(found)
        return pool

    def add_mixed(self) -> None:
        """Add the lower-bounded columns of the compositions still pending."""
        found = defaultdict(list, self.by_signature)
        for entry in self._bounded(self.pending):
            found[entry.composition.signature].append(entry)
        self.pending.clear()
        self._take(found)

    def _take(self, found: dict[Signature, list[Entry]]) -> None:
        self.by_signature = {
            s: undominated(found[s]) for s in sorted(found) if found[s]
        }

    @cached_property
    def chunks(self) -> ChunkGroups:
        """Points grouped by (M, q)."""
        return ChunkGroups(self.problem)

    @cached_property
    def _chains(self) -> ChainPricer:
        return ChainPricer(self.problem, self.chunks)

    def _single(self, composition: Composition) -> list[Entry]:
        """Entries of a composition of one unit."""
        unit, crossings = composition.single_unit, len(composition.parts) - 1
        assert unit is not None
        homes = _homes(composition)
        marks = crossings_of(homes)
        return [
            Entry(
                composition,
                column.point,
                column.tpot_ns,
                column.ttft_ns,
                column.rate_mtok_per_s,
                column.design and replace(column.design, crossings=marks),
                homes,
            )
            for column in self._chains.front(unit, composition.stages, crossings)
        ]

    def entry(
        self, composition: Composition, design: Design, homes: tuple[int, ...]
    ) -> Entry:
        """The exact entry of a design."""
        f = self.problem.figures(design)
        return Entry(
            composition,
            design.point,
            f.times.tpot_ns,
            f.times.ttft_ns,
            f.rate_mtok_per_s,
            design,
            homes,
        )

    def _bounded(self, mixed: list[Composition]) -> Iterator[Entry]:
        """Lower-bounded entries, many points and all compositions at a time."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for o in self.chunks.variants:
            groups[tuple(self.problem.stage_counts(o))].append(o)
        for stages, points in groups.items():
            group = [c for c in mixed if c.stages in stages]
            if not group:
                continue
            some = _arrays(self.problem, group)
            for block in _blocks(points, len(group)):
                self.limits.poll()
                bounds = tpot_lower_bounds(self.problem, some, block)
                for i, j in np.argwhere(bounds > 0).tolist():
                    o, tpot = block[i], int(bounds[i, j])
                    rate = rate_mtok_per_s(self.problem.points[o].sequences, tpot)
                    yield Entry(group[j], o, tpot, 0, rate, None)

    def solve(self, entry: Entry) -> Entry | None:
        """The exact entry of a bounded one; None when no design fits.

        The pool is updated either way. Raises Interrupted when time runs out.
        """
        self.limits.poll()
        self.solved += 1
        solved = self._solve_design(entry)
        exact = None if solved is None else self.entry(entry.composition, *solved)
        signature = entry.composition.signature
        rest = [e for e in self.by_signature[signature] if e is not entry]
        self.by_signature[signature] = undominated(
            rest if exact is None else [*rest, exact]
        )
        return exact

    def _solve_design(self, entry: Entry) -> tuple[Design, tuple[int, ...]] | None:
        unit = entry.composition.single_unit
        if unit is not None:
            return self._solve_chain(entry, unit)
        homes: dict[tuple[StageChoice, ...], tuple[int, ...]] = {}

        def solve(point: int, prefill: bool) -> Design | None:
            found = self._solve_at(entry.composition, point, prefill)
            if found is None:
                return None
            homes[found[0].stages] = found[1]
            return found[0]

        design = self.chunks.least_tpot(entry.point, solve)
        return None if design is None else (design, homes[design.stages])

    def _solve_chain(
        self, entry: Entry, unit: int
    ) -> tuple[Design, tuple[int, ...]] | None:
        stages, crossings = entry.composition.stages, len(entry.composition.parts) - 1
        design = self._chains.price(unit, stages, crossings, entry.point)
        if design is None:
            return None
        return replace(design, crossings=crossings_of(entry.homes)), entry.homes

    def _solve_at(
        self, composition: Composition, point: int, prefill: bool
    ) -> tuple[Design, tuple[int, ...]] | None:
        problem = self.problem if prefill else self._without_prefill
        if counts.applicable(problem):
            parts = tuple((p.gpu_class, p.units) for p in composition.parts)
            try:
                return counts.least_tpot_design(problem, parts, point)
            except counts.PrefillBinds:
                pass
        return self._solve_by_arcs(problem, composition, point)

    @cached_property
    def _without_prefill(self) -> Problem:
        bounds = self.problem.bounds
        free = replace(bounds, prefill_ns=None, ttft_ns=None, e2e_ns=None)
        return replace(self.problem, bounds=free)

    def _solve_by_arcs(
        self, problem: Problem, composition: Composition, point: int
    ) -> tuple[Design, tuple[int, ...]] | None:
        from shardwright.formulations.cpsat.engine import run

        parts = composition.parts
        usage = {
            (i, unit): count
            for i, part in enumerate(parts)
            for unit, count in run_lengths(part.units)
        }
        program = ReplicaArcs(
            problem,
            point,
            tuple(part.gpu_class for part in parts),
            tuple(usage),
            stages=composition.stages,
            counts=usage,
        )
        model, variables = program.build()
        outcome = run(model, self.limits, workers=1)
        if outcome.status is Status.INFEASIBLE:
            return None
        if outcome.status is not Status.OPTIMAL:
            self.limits.poll()
            raise Interrupted("time")
        return program.decode(variables, outcome)

    def best(self, tpot_cap_ns: int | None, exact: bool = False) -> list[Entry]:
        """The best column of every signature within a TPOT cap."""
        chosen = []
        for entries in self.by_signature.values():
            for entry in entries:
                if exact and entry.design is None:
                    continue
                if tpot_cap_ns is None or entry.tpot_ns <= tpot_cap_ns:
                    chosen.append(entry)
                    break
        return chosen

    def column(self, entry: Entry) -> Column:
        """The entry as the fleet program sees it."""
        signature = entry.composition.signature
        classes = self.problem.classes
        return Column(
            signature,
            sum(size for _, size in signature),
            sum(classes[k].price_micro_usd_per_hour * size for k, size in signature),
            entry.rate_mtok_per_s,
        )

    def tpot_values(self) -> list[int]:
        """Distinct TPOT values (or bounds) of all columns, ascending."""
        return sorted({e.tpot_ns for es in self.by_signature.values() for e in es})

    @property
    def size(self) -> int:
        """Columns in the pool."""
        return sum(len(entries) for entries in self.by_signature.values())


def _homes(composition: Composition) -> tuple[int, ...]:
    """Part of every stage when the parts are visited one after another."""
    return tuple(i for i, part in enumerate(composition.parts) for _ in part.units)


def _blocks(points: list[int], compositions: int) -> Iterator[list[int]]:
    """Points in blocks of at most ``_BLOCK`` pairs with the compositions."""
    size = max(1, _BLOCK // compositions)
    for start in range(0, len(points), size):
        yield points[start : start + size]


def _arrays(problem: Problem, group: list[Composition]) -> Compositions:
    counted = [
        run_lengths(tuple(sorted(u for part in c.parts for u in part.units)))
        for c in group
    ]
    most = max(len(pairs) for pairs in counted)
    units: IntArray = np.zeros((len(group), most), dtype=np.int64)
    stages: IntArray = np.zeros((len(group), most), dtype=np.int64)
    parts: IntArray = np.zeros((len(group), len(problem.classes)), dtype=np.int64)
    for i, (composition, pairs) in enumerate(zip(group, counted, strict=True)):
        for part in composition.parts:
            parts[i, part.gpu_class] += 1
        for j, (unit, count) in enumerate(pairs):
            units[i, j], stages[i, j] = unit, count
    return Compositions(units, stages.astype(np.float64), parts.astype(np.float64))
