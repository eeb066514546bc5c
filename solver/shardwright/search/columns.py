"""The column pool: every (composition, operating point), exact or bounded.

For one composition and point the design of least TPOT within the rules is the best
for every goal, because rate = M / TPOT while GPUs and cost are given. The best column
of every chain of a single unit is exact at once; all others start with a lower bound
on TPOT and are solved when the fleet program first picks them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from shardwright.formulations.cpsat.arcs import ReplicaArcs
from shardwright.formulations.cpsat.patterns import Column
from shardwright.formulations.dp import counts
from shardwright.formulations.dp.relaxation import tpot_lower_bounds
from shardwright.problem import (
    Design,
    PoolRole,
    Problem,
    Signature,
    StageChoice,
    crossings_of,
)
from shardwright.schema.result import Status
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.blocks import as_arrays, blocks
from shardwright.search.chains import ChainColumn, ChainPricer, undominated
from shardwright.search.chunks import ChunkGroups
from shardwright.search.compositions import Composition, compositions, run_lengths
from shardwright.search.loaded import LoadedChains

_POLL_EVERY = 64


Key = tuple[Signature, PoolRole]


@dataclass(frozen=True)
class Entry:
    """One column: ``design`` is None while only ``tpot_ns`` is bounded below.

    ``homes`` is the part of the composition that every stage lies on. No design of the
    composition at the point has a rate above ``ceiling`` (None: the rate).
    ``every_point`` marks the bound of a whole chain, whose points come when it is
    solved.
    """

    composition: Composition
    point: int
    tpot_ns: int
    ttft_ns: int
    rate_mtok_per_s: int
    design: Design | None
    homes: tuple[int, ...] = ()
    ceiling: int | None = None
    every_point: bool = False

    @property
    def most_mtok_per_s(self) -> int:
        """No design that the entry stands for has a larger rate."""
        return self.rate_mtok_per_s if self.ceiling is None else self.ceiling


@dataclass
class ColumnPool:
    """Columns by signature and role, each list by falling rate (``undominated``).

    When not ``complete``, columns that touch more islands than they need are left
    out: the best fleet over the pool may then miss the optimum, and only the program
    without patterns bounds it.
    """

    problem: Problem
    limits: SearchLimits
    by_signature: dict[Key, list[Entry]] = field(default_factory=dict)
    pending: list[Composition] = field(default_factory=list)
    solved: int = 0
    complete: bool = True

    @classmethod
    def build(cls, problem: Problem, limits: SearchLimits) -> ColumnPool:
        """The columns of a single unit; ``add_mixed`` brings the others."""
        pool = cls(problem, limits)
        found: dict[Key, list[Entry]] = defaultdict(list)
        listed, pool.complete = compositions(problem)
        for i, composition in enumerate(listed):
            if i % _POLL_EVERY == 0:
                limits.poll()
            if composition.single_unit is None:
                pool.pending.append(composition)
            else:
                for role in pool.roles:
                    key = (composition.signature, role)
                    found[key] += pool._single(composition, role)
        pool._take(found)
        return pool

    def add_mixed(self) -> None:
        """Add the lower-bounded columns of the compositions still pending."""
        found = defaultdict(list, self.by_signature)
        for entry in self._bounded(self.pending):
            found[pool_key(self.problem, entry)].append(entry)
        self.pending.clear()
        self._take(found)

    def _take(self, found: dict[Key, list[Entry]]) -> None:
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

    @cached_property
    def roles(self) -> tuple[PoolRole, ...]:
        """Roles that the points of the grid have."""
        return tuple(dict.fromkeys(point.role for point in self.problem.points))

    def _single(self, composition: Composition, role: PoolRole) -> list[Entry]:
        """Entries of a composition of one unit in one role."""
        unit, crossings = composition.single_unit, len(composition.parts) - 1
        assert unit is not None
        chain = (unit, composition.stages, crossings, role)
        if self._loaded is None:
            return self._entries(composition, self._chains.front(*chain))
        return self._whole_chain(composition, self._loaded.bounded(*chain))

    def _whole_chain(
        self, composition: Composition, bounded: list[ChainColumn]
    ) -> list[Entry]:
        """One entry that bounds every point of a chain."""
        if not bounded:
            return []
        least = min(column.tpot_ns for column in bounded)
        top = replace(bounded[0], tpot_ns=least)
        return [
            replace(entry, every_point=True)
            for entry in self._entries(composition, [top])
        ]

    def _entries(
        self, composition: Composition, columns: list[ChainColumn]
    ) -> list[Entry]:
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
                column.ceiling,
            )
            for column in columns
        ]

    @cached_property
    def _loaded(self) -> LoadedChains | None:
        """Chains under percentile targets; None without any."""
        model = self.problem.percentiles
        return (
            None if model is None else LoadedChains(self.problem, model, self._chains)
        )

    def entry(
        self, composition: Composition, design: Design, homes: tuple[int, ...]
    ) -> Entry:
        """The exact entry of a design."""
        f = self.problem.rated(design)
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
            some = as_arrays(self.problem, group)
            units = [[u for part in c.parts for u in part.units] for c in group]
            gpus = [self.problem.caching_gpus(some_of) for some_of in units]
            for block in blocks(points, len(group)):
                self.limits.poll()
                bounds = tpot_lower_bounds(self.problem, some, block)
                for i, j in np.argwhere(bounds > 0).tolist():
                    o, tpot = block[i], int(bounds[i, j])
                    rate = self.problem.rate_mtok_per_s(o, tpot, gpus[j])
                    yield Entry(group[j], o, tpot, 0, rate, None)

    def solve(self, entry: Entry) -> None:
        """Put the exact entries of a bounded one in its place.

        Raises Interrupted when time runs out.
        """
        self.limits.poll()
        self.solved += 1
        key = pool_key(self.problem, entry)
        rest = [e for e in self.by_signature[key] if e is not entry]
        self.by_signature[key] = undominated([*rest, *self._solved(entry)])

    def _solved(self, entry: Entry) -> list[Entry]:
        unit = entry.composition.single_unit
        if self._loaded is not None and unit is not None:
            return self._solve_loaded(self._loaded, entry, unit)
        solved = self._solve_design(entry)
        if solved is None:
            return []
        exact = self.entry(entry.composition, *solved)
        if self._loaded is None:
            return [exact]
        return [
            replace(exact, ceiling=max(entry.rate_mtok_per_s, exact.rate_mtok_per_s))
        ]

    def _solve_loaded(
        self, loaded: LoadedChains, entry: Entry, unit: int
    ) -> list[Entry]:
        """Closer bounds or all points of a chain, or the splits of one of them."""
        composition, role = entry.composition, self._role(entry)
        chain = (unit, composition.stages, len(composition.parts) - 1)
        if entry.every_point:
            columns, exact = loaded.refined(*chain, role)
            made = self._entries if exact else self._whole_chain
            return made(composition, columns)
        point = ChainColumn(
            entry.point, entry.tpot_ns, entry.ttft_ns, entry.rate_mtok_per_s, None
        )
        return self._entries(composition, loaded.price(*chain, point))

    @property
    def open(self) -> bool:
        """Whether some column is not known to have the largest rate of its kind."""
        return any(
            e.most_mtok_per_s > e.rate_mtok_per_s
            for entries in self.by_signature.values()
            for e in entries
        )

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
        """The best column of every signature and role within a TPOT cap."""
        chosen = []
        for entries in self.by_signature.values():
            for entry in entries:
                if exact and entry.design is None:
                    continue
                free = tpot_cap_ns is None or self._role(entry) == "prefill"
                if free or entry.tpot_ns <= (tpot_cap_ns or 0):
                    chosen.append(entry)
                    break
        return chosen

    def best_possible(self) -> list[Entry]:
        """Of every signature and role the column with the largest ceiling."""
        return [
            max(entries, key=lambda e: e.most_mtok_per_s)
            for entries in self.by_signature.values()
            if entries
        ]

    def column(self, entry: Entry, ceiling: bool = False) -> Column:
        """The entry as the fleet program sees it, or the most that it could be."""
        signature = entry.composition.signature
        classes = self.problem.classes
        return Column(
            signature,
            sum(size for _, size in signature),
            sum(classes[k].price_micro_usd_per_hour * size for k, size in signature),
            entry.most_mtok_per_s if ceiling else entry.rate_mtok_per_s,
            self._role(entry),
        )

    def _role(self, entry: Entry) -> PoolRole:
        return self.problem.points[entry.point].role

    def tpot_ns(self, entry: Entry) -> int:
        """TPOT, or a bound on it; 0 for a prefill replica."""
        return 0 if self._role(entry) == "prefill" else entry.tpot_ns

    def tpot_values(self) -> list[int]:
        """Distinct TPOT values (or bounds) of all columns, ascending."""
        listed = (e for es in self.by_signature.values() for e in es)
        return sorted({self.tpot_ns(e) for e in listed} - {0})

    @property
    def size(self) -> int:
        """Columns in the pool."""
        return sum(len(entries) for entries in self.by_signature.values())


def pool_key(problem: Problem, entry: Entry) -> Key:
    """Where an entry stands in the pool."""
    return entry.composition.signature, problem.points[entry.point].role


def _homes(composition: Composition) -> tuple[int, ...]:
    """Part of every stage when the parts are visited one after another."""
    return tuple(i for i, part in enumerate(composition.parts) for _ in part.units)


def unknown_of(entries: Sequence[Entry]) -> list[Entry]:
    """Distinct columns that are only bounded."""
    return list({id(e): e for e in entries if e.design is None}.values())
