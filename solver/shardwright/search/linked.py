"""The loop with placement: links that the fleet assumed and cannot have become cuts.

The fleet's program prices hops between islands at the level of their links (level 1:
the fastest of the cluster). A column of level l promises that all its hops are at
level l or faster; which islands keep that promise only placement knows. So the fleet
is laid on islands (``cpsat/links.py``); where it cannot be, a part of it as small as
possible becomes a cut (never all of these so often again), and the fleet is chosen
anew. A fleet that can be laid attains the bound of its program.

A replica on three and more islands may have hops of several levels. As a column it has
them all at the slowest; once there are cuts, the bound takes them all at the fastest,
wherever the replica lies. Where its islands are unlike, their order counts, which
signatures do not know: if such a fleet cannot be laid in its order, the plan goes on
without these columns (but for the slowest level, which lies anywhere), not the bound.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from shardwright.formulations.cpsat.engine import EngineRun, run
from shardwright.formulations.cpsat.links import (
    Group,
    Segment,
    TooLarge,
    Undecided,
    Yard,
)
from shardwright.formulations.cpsat.patterns import Column, Cut, Need
from shardwright.problem import Problem
from shardwright.schema.errors import SolverFailure
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.columns import ColumnPool, Entry
from shardwright.search.decomposition import NotLaid, Search
from shardwright.search.fleets import Laid, UsedPatterns, place
from shardwright.search.goals import fleet_fits

_MOST_CUTS = 400
_LAID_S = 20.0

Kind = tuple[tuple[Segment, ...], int, bool]
"""Segments in order, level, and whether the hops between them are told."""


def applies(problem: Problem) -> bool:
    """Whether some hop between islands is slower than another."""
    return (
        problem.reach is not None
        and problem.reach.slower > 0
        and all(unit.islands == 1 for unit in problem.units)
    )


@dataclass
class LinkedPool(ColumnPool):
    """Columns of every level: the pool's own have level 1, ``slower`` the others'."""

    slower: list[ColumnPool] = field(default_factory=list)

    @classmethod
    def build(
        cls, problem: Problem, limits: SearchLimits, level: int = 1
    ) -> LinkedPool:
        """The columns of a single unit, at every level."""
        pool = super().build(problem, limits, level)
        assert isinstance(pool, LinkedPool)
        t = problem.tables
        for level, (decode, prefill) in enumerate(t.slower_hops, start=2):
            tables = replace(t, hop_inter=decode, prefill_hop_inter=prefill)
            twin = ColumnPool.build(replace(problem, tables=tables), limits, level)
            pool.slower.append(twin)
        return pool

    def add_mixed(self) -> None:
        """Lower-bounded columns of every level."""
        super().add_mixed()
        for twin in self.slower:
            twin.add_mixed()

    def solve(self, entry: Entry) -> None:
        """Price a column exactly, at its level."""
        if entry.level > 1:
            self.slower[entry.level - 2].solve(entry)
        else:
            super().solve(entry)

    def best(self, tpot_cap_ns: int | None, exact: bool = False) -> list[Entry]:
        """The best column of every signature, role and level."""
        slow = [e for twin in self.slower for e in twin.best(tpot_cap_ns, exact)]
        own = super().best(tpot_cap_ns, exact)
        return [*own, *(e for e in slow if len(e.composition.parts) > 1)]

    def tpot_values(self) -> list[int]:
        """Distinct TPOT values of all levels."""
        more = {t for twin in self.slower for t in twin.tpot_values()}
        return sorted({*super().tpot_values(), *more})

    @property
    def scattered(self) -> bool:
        """Whether a replica may have hops of several levels."""
        return any(len(signature) > 2 for signature, _ in self.by_signature)


@dataclass
class LinkedSearch(Search):
    """A search whose fleets are laid before they count."""

    cuts: list[Cut] = field(default_factory=list)
    unordered: list[Cut] = field(default_factory=list)
    """Of plans only: signatures that could not be laid in their order."""
    optimistic: bool = False
    """Bounding: replicas on three and more islands have fast hops wherever they lie."""

    def _build(self, problem: Problem) -> ColumnPool:
        return LinkedPool.build(problem, self.limits)

    def _cuts(self) -> list[Cut]:
        return self.cuts if self.optimistic else [*self.cuts, *self.unordered]

    def _proves(self, pool: ColumnPool) -> bool:
        return super()._proves(pool) and (self.optimistic or not self._open(pool))

    def _open(self, pool: ColumnPool) -> bool:
        """Whether fleets of hops of several levels may be better than the columns."""
        assert isinstance(pool, LinkedPool)
        return bool(self.cuts or self.unordered) and pool.scattered

    def _nothing_fits(self, pool: ColumnPool) -> None:
        """Infeasible at the columns' levels proves nothing where levels may mix."""
        super()._nothing_fits(pool)
        if self._open(pool):
            found = self._fastest(pool, "feasible", None)
            if found is not None:
                raise Interrupted("memory")

    def _fastest(
        self, pool: ColumnPool, goal: str, known: int | None
    ) -> EngineRun | None:
        """The program with fast hops for all that lie on three and more islands.

        Where its fleet keeps the rules with the hops that it has, it is a plan. None:
        there is no fleet. Not solved to its end where its bound is ``known``.
        """
        self.optimistic = True
        try:
            while True:
                entries = self._promising(pool, goal)
                outcome, chosen = self._solve(pool, entries, goal)
                if chosen is None:
                    return None
                unknown = [e for e in chosen[0] if e.design is None]
                if not unknown:
                    fleet = place(pool.problem, pool.chunks, *chosen)
                    if fleet_fits(self.problem, fleet):
                        self._keep_fleet(fleet, final=False)
                    return outcome
                if known is not None and outcome.bound == known:
                    return outcome
                self._price(pool, unknown, goal)
        finally:
            self.optimistic = False

    def _as_columns(
        self, pool: ColumnPool, entries: Sequence[Entry], ceilings: bool
    ) -> list[Column]:
        found = super()._as_columns(pool, entries, ceilings)
        if not self.optimistic:
            return found
        last = len(self.problem.tables.slower_hops) + 1
        return [replace(c, level=last) if len(c.signature) > 2 else c for c in found]

    def _linked(
        self, entries: list[Entry], patterns: UsedPatterns, pooled: bool
    ) -> UsedPatterns | Laid | None:
        """The fleet on islands that keep its promises; None after another cut."""
        if pooled:
            return patterns
        if all(len(e.composition.parts) == 1 for e in entries):
            return patterns
        kinds = [self._kind(entry) for entry in entries]
        laid = self._laid(Counter(kinds), loose=self.optimistic)
        if laid is None:
            self._cut(Counter(kinds))
            return None
        left = {kind: list(paths) for kind, paths in laid.items()}
        return Laid(tuple(left[kind].pop() for kind in kinds))

    def _kind(self, entry: Entry) -> Kind:
        """Parts in the order of their stages; unordered where they are met again."""
        parts, problem = entry.composition.parts, self.problem
        order = list(dict.fromkeys(entry.homes)) or list(range(len(parts)))
        sizes = [
            (p.gpu_class, sum(problem.units[u].gpus for u in p.units)) for p in parts
        ]
        runs = [home for home, _ in groupby(entry.homes)]
        alike = len(set(sizes)) == 1
        known = len(parts) < 3 or (len(runs) == len(parts) if runs else alike)
        level = entry.level if len(parts) > 1 else 1
        if self.optimistic and len(parts) > 2:
            level = len(problem.tables.slower_hops) + 1
        return tuple(sizes[i] for i in order), level, known

    def _laid(
        self, kinds: Counter[Kind], loose: bool = False
    ) -> dict[Kind, list[tuple[int, ...]]] | None:
        """Islands of all replicas of each kind, None where they cannot be laid.

        ``loose``: replicas on three and more unlike islands may have any hops.
        """
        reach = self.problem.reach
        assert reach is not None
        last = reach.slower + 1
        yard = Yard(
            [(i.gpu_class, i.free) for i in self.problem.islands], reach.between
        )
        groups = []
        for (segments, level, known), count in kinds.items():
            many = len(segments) > 2
            free = not known or (
                many and (self.optimistic or (loose and _unlike(segments)))
            )
            groups.append(Group(segments, last if free else level, count))
        try:
            found = yard.laid(groups, self._run)
        except (TooLarge, Undecided):
            raise NotLaid from None
        return None if found is None else dict(zip(kinds, found, strict=True))

    def _run(self, model: Any) -> EngineRun:
        seconds = min(_LAID_S, self.limits.remaining_s())
        limits = SearchLimits(
            seconds, workers=self.limits.workers, stop=self.limits.stop
        )
        self.limits.poll()
        return run(model, limits)

    def _cut(self, kinds: Counter[Kind]) -> None:
        """A part of the fleet, as small as can be, that cannot be laid."""
        if len(self.cuts) + len(self.unordered) >= _MOST_CUTS:
            raise NotLaid
        if not self.optimistic and self._laid(kinds, loose=True) is not None:
            last = len(self.problem.tables.slower_hops)
            self.unordered += [
                (Need(tuple(sorted(segments)), last, 1),)
                for segments, level, _ in kinds
                if _unlike(segments) and level <= last
            ]
            return
        least = Counter(kinds)
        for kind in sorted(kinds, key=lambda k: (len(k[0]), k)):
            low, high = 0, least[kind]
            while low < high:
                middle = (low + high) // 2
                fewer = +Counter({**least, kind: middle})
                if self._laid(fewer, loose=True) is None:
                    high = middle
                else:
                    low = middle + 1
            least[kind] = high
        self.cuts.append(_cut_of(+least))
        self.sizes["link_cuts"] = len(self.cuts)

    def _linear_bound(self, pool: ColumnPool, goal: str, bound: int) -> int:
        """Where hops of several levels may meet, the bound of fast ones."""
        if not self._open(pool):
            return bound
        outcome = self._fastest(pool, goal, bound)
        if outcome is None or outcome.bound is None:
            raise SolverFailure(f"fast hops hold no plan of {goal} {bound}")
        return outcome.bound


def _unlike(segments: tuple[Segment, ...]) -> bool:
    return len(segments) > 2 and len(set(segments)) > 1


def _cut_of(kinds: Counter[Kind]) -> Cut:
    """Never so many of each signature, with hops at each level or faster."""
    counts: dict[tuple[Segment, ...], Counter[int]] = defaultdict(Counter)
    for (segments, level, _), count in kinds.items():
        counts[tuple(sorted(segments))][level] += count
    needs = []
    for signature, levels in counts.items():
        for level in levels:
            total = sum(n for other, n in levels.items() if other <= level)
            needs.append(Need(signature, level, total))
    return tuple(needs)
