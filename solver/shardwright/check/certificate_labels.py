"""Label-setting: the exact answer at a point where multipliers leave a gap.

Layers alike make their order immaterial, and with it that of the stages between the
ends. A label is how many stages of each unit a replica has; what it costs follows from
how they lie in segments, and whether some split of the layers keeps a cap on TPOT is a
knapsack with one equation, filled by increasing time per layer. So every label is
tried once, under the cap that would make it earn more than its price allows.
docs/formulation.md, sections 2.2 and 10.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product

from shardwright.check.certificate_tables import (
    FIRST,
    LAST,
    MIDDLE,
    ONLY,
    PointRows,
    most_layers,
)

MOST_LABELS = 50_000
"""Labels, and layings of one, that are listed at most."""

Counts = tuple[tuple[int, int], ...]
"""(unit, stages)."""

Sizes = tuple[tuple[int, ...], ...]
"""Multisets of segment sizes."""

Segments = tuple[tuple[int, int], ...]
"""Sorted (type, GPUs) of the segments of a replica."""


class TooMany(Exception):
    """More labels than are listed."""


@dataclass(frozen=True)
class Laying:
    """Segments that hold a label's stages: their price, and how many of each type."""

    price: int
    segments: Segments
    per_type: tuple[int, ...]


@dataclass(frozen=True)
class Label:
    """(unit, stages) of every unit in use. least: the least price of a laying."""

    counts: Counts
    stages: int
    gpus: int
    least: int
    choices: tuple[Sizes, ...]
    """Per type, the multisets of segment sizes that its stages can form."""


@dataclass(frozen=True)
class Earner:
    """A replica that earns more than its price allows: what it earns at most."""

    rate: int
    laying: Laying
    gpus: int


@dataclass
class LabelBook:
    """All labels of some units, by number of stages.

    units: (type, GPUs); prices[type][z]; free: GPUs per type. ``every`` keeps all
    layings, else the cheapest of those with equally many segments per type. Raises
    TooMany.
    """

    units: tuple[tuple[int, int], ...]
    prices: list[tuple[int, ...]]
    free: tuple[int, ...]
    most_gpus: int
    most_stages: int
    every: bool
    _vectors: list[list[Counts]] = field(init=False)

    def __post_init__(self) -> None:
        self._vectors = [[*self._of_type(k)] for k in range(len(self.prices))]
        listed = math.prod(len(some) for some in self._vectors)
        if listed > MOST_LABELS:
            raise TooMany(f"{listed:,} labels")

    @cached_property
    def sizes(self) -> Counter[int]:
        """Labels by number of stages."""
        return Counter(
            stages
            for parts in product(*self._vectors)
            if (stages := self._stages([n for part in parts for n in part]))
        )

    def _stages(self, counts: list[tuple[int, int]]) -> int:
        """Stages in all; 0 where the replica would be too large."""
        stages = sum(n for _, n in counts)
        gpus = sum(self.units[u][1] * n for u, n in counts)
        return stages if stages <= self.most_stages and gpus <= self.most_gpus else 0

    @cached_property
    def by_stages(self) -> dict[int, list[Label]]:
        """All labels by number of stages. Raises TooMany."""
        found: dict[int, list[Label]] = {}
        for parts in product(*(self._priced(k) for k in range(len(self.prices)))):
            counts = tuple(entry for vector, _, _ in parts for entry in vector)
            stages = self._stages([*counts])
            if stages:
                gpus = sum(self.units[u][1] * n for u, n in counts)
                least = sum(low for _, _, low in parts)
                choices = tuple(layings for _, layings, _ in parts)
                label = Label(counts, stages, gpus, least, choices)
                found.setdefault(stages, []).append(label)
        return found

    def _priced(self, k: int) -> list[tuple[Counts, Sizes, int]]:
        """Stage counts of one type, how they may lie, and the least price of it."""
        found, listed = [], 0
        for vector in self._vectors[k]:
            layings = self._layings(vector)
            listed += len(layings)
            if listed > MOST_LABELS:
                raise TooMany("layings of one type")
            if layings:
                least = min(self._price(k, sizes) for sizes in layings)
                found.append((vector, layings, least))
        return found

    def _of_type(self, k: int) -> Iterator[Counts]:
        """Stage counts (unit, stages) of the units of a type."""
        mine = [u for u, (kind, _) in enumerate(self.units) if kind == k]

        def grow(
            at: int, left: int, stages: int
        ) -> Iterator[tuple[tuple[int, int], ...]]:
            if at == len(mine):
                yield ()
                return
            width = self.units[mine[at]][1]
            for n in range(min(left // width, stages) + 1):
                for rest in grow(at + 1, left - n * width, stages - n):
                    yield ((mine[at], n), *rest) if n else rest

        room = min(self.free[k], self.most_gpus)
        for found, vector in enumerate(grow(0, room, self.most_stages)):
            if found > MOST_LABELS:
                raise TooMany("stage counts of one type")
            yield vector

    def _price(self, k: int, sizes: tuple[int, ...]) -> int:
        return sum(self.prices[k][z] for z in sizes)

    def _layings(
        self, vector: tuple[tuple[int, int], ...]
    ) -> tuple[tuple[int, ...], ...]:
        """Multisets of segment sizes that some stages of one type can form."""
        if not vector:
            return ((),)
        kind = self.units[vector[0][0]][0]
        widths = tuple(self.units[u][1] for u, _ in vector)
        found = _partitions(widths, tuple(n for _, n in vector), len(self.prices[kind]))
        if self.every:
            return tuple(sorted(found))
        best: dict[int, tuple[int, ...]] = {}
        for sizes in sorted(found):
            known = best.get(len(sizes))
            if known is None or self._price(kind, sizes) < self._price(kind, known):
                best[len(sizes)] = sizes
        return tuple(best.values())

    def layings(self, label: Label) -> Iterator[Laying]:
        """All ways to lay a label, unordered."""
        for chosen in product(*label.choices):
            segments = tuple(
                sorted((k, z) for k, sizes in enumerate(chosen) for z in sizes)
            )
            price = sum(self.prices[k][z] for k, z in segments)
            yield Laying(price, segments, tuple(len(sizes) for sizes in chosen))


@lru_cache(maxsize=65_536)
def _partitions(
    widths: tuple[int, ...], counts: tuple[int, ...], room: int
) -> frozenset[tuple[int, ...]]:
    """Sorted sizes, each below ``room``, of groups of counts[i] units of widths[i]."""
    first = next((i for i, n in enumerate(counts) if n), None)
    if first is None:
        return frozenset({()})
    found: set[tuple[int, ...]] = set()
    for taken in product(*(range(n + 1) for n in counts)):
        size = sum(w * n for w, n in zip(widths, taken, strict=True))
        if not taken[first] or size >= room:
            continue
        left = tuple(n - t for n, t in zip(counts, taken, strict=True))
        for rest in _partitions(widths, left, room):
            found.add(tuple(sorted((size, *rest))))
        if len(found) > MOST_LABELS:
            raise TooMany("layings of one label")
    return frozenset(found)


@dataclass
class Exam:
    """Whether labels keep a cap on TPOT at one point, exactly."""

    rows: PointRows
    _paths: dict[tuple[int, ...], int | None] = field(default_factory=dict)

    def fits(self, label: Label, theta: int, laying: Laying | None) -> bool:
        """Whether some split keeps q T <= theta and S <= theta; no laying: least hops.

        Memory is kept, too.
        """
        rows, counts = self.rows, label.counts
        stage, length = theta // rows.micro_batches, rows.layers
        if label.stages == 1:
            unit = rows.units[counts[0][0]]
            time = unit.layer_ns * length + unit.stage_ns[ONLY]
            return unit.most[ONLY] >= length and time <= stage
        if label.stages > length:
            return False
        caps = {u: self.caps(u, stage) for u, _ in counts}
        if sum(n * max(caps[u]) for u, n in counts) < length:
            return False
        return any(
            self._split_fits(label, theta, caps, first, last, laying)
            for first, last in ends(label)
        )

    def caps(self, u: int, stage: int) -> tuple[int, ...]:
        """Most layers of a stage of unit u by role, within ``stage`` ns."""
        unit = self.rows.units[u]
        return tuple(
            most_layers(unit.most[role], stage - unit.stage_ns[role], unit.layer_ns)
            for role in (MIDDLE, FIRST, LAST)
        )

    def _split_fits(
        self,
        label: Label,
        theta: int,
        caps: dict[int, tuple[int, ...]],
        first: int,
        last: int,
        laying: Laying | None,
    ) -> bool:
        hops = self.hops(label, first, last, laying)
        if hops is None:
            return False
        return self.least_pass(groups(label, first, last), caps, hops) <= theta

    def least_pass(
        self,
        groups: tuple[tuple[int, int, int], ...],
        caps: dict[int, tuple[int, ...]],
        hops: int,
    ) -> int:
        """The least S over all splits within the caps; more than any cap: none."""
        rows, total = self.rows, hops
        left, room = self.rows.layers, []
        for u, role, n in groups:
            cap, unit = caps[u][role], rows.units[u]
            if cap < 1:
                return NO_SPLIT
            total += n * (unit.stage_ns[role] + unit.layer_ns)
            left -= n
            room.append((unit.layer_ns, n * (cap - 1)))
        if left > 0:
            for each, most in sorted(room):
                taken = min(left, most)
                total, left = total + taken * each, left - taken
                if not left:
                    break
        return NO_SPLIT if left else total

    def hops(
        self, label: Label, first: int, last: int, laying: Laying | None
    ) -> int | None:
        """Least hops and return; None where the ends cannot lie like that."""
        rows = self.rows
        if laying is None:
            return (label.stages - 1) * min(rows.inside) + rows.back
        stages = [0] * len(rows.inside)
        for u, n in label.counts:
            stages[rows.units[u].kind] += n
        inside = sum(
            (n - s) * each
            for n, s, each in zip(stages, laying.per_type, rows.inside, strict=True)
        )
        kinds = rows.units[first].kind, rows.units[last].kind
        across = self._path(laying.per_type, *kinds)
        return None if across is None else inside + across + rows.back

    def _path(self, left: tuple[int, ...], begin: int, end: int) -> int | None:
        """Least hops of a row of segments, so many of each type, between two types."""
        key = (*left, begin, end)
        if key not in self._paths:
            self._paths[key] = self._shortest(left, begin, end)
        return self._paths[key]

    def _shortest(self, left: tuple[int, ...], begin: int, end: int) -> int | None:
        if not left[begin]:
            return None
        rest = tuple(n - (k == begin) for k, n in enumerate(left))
        if not any(rest):
            return 0 if begin == end else None
        found = [
            self.rows.hop[begin][k] + path
            for k, n in enumerate(rest)
            if n and (path := self._path(rest, k, end)) is not None
        ]
        return min(found, default=None)

    def least_theta(self, most: int, keeps: Callable[[int], bool]) -> int:
        """The least cap that is kept, when ``most`` is: keeping grows with the cap."""
        low = 1
        while low < most:
            middle = (low + most) // 2
            low, most = (low, middle) if keeps(middle) else (middle + 1, most)
        return most


NO_SPLIT = 1 << 200
"""More than any cap on TPOT."""


def ends(label: Label) -> Iterator[tuple[int, int]]:
    """Units that may come first and last, in a label of several stages."""
    for first, n in label.counts:
        for last, _ in label.counts:
            if first != last or n > 1:
                yield first, last


def groups(label: Label, first: int, last: int) -> tuple[tuple[int, int, int], ...]:
    """(unit, role, stages) with these ends; roles as positions of ``Exam.caps``."""
    inner = ((u, 0, n - (u == first) - (u == last)) for u, n in label.counts)
    return (
        *(group for group in inner if group[2]),
        (first, 1, 1),
        (last, 2, 1),
    )


def earners(
    exam: Exam,
    book: LabelBook,
    stages: range,
    limit: int,
    least_rate: Callable[[int], int],
    keeps: Callable[[Label, int, Laying], bool],
) -> Iterator[Earner]:
    """Every replica of a point that earns ``least_rate`` of its price, or more.

    limit: on TPOT. keeps: further rules of a label under a cap, for the few that earn
    as much.
    """
    tokens = exam.rows.tokens
    for count in stages:
        for label in book.by_stages.get(count, ()):
            cap = min(limit, tokens // least_rate(label.least))
            if cap < 1 or not exam.fits(label, cap, None):
                continue
            for laying in book.layings(label):
                cap = min(limit, tokens // least_rate(laying.price))

                def fine(
                    theta: int, laying: Laying = laying, of: Label = label
                ) -> bool:
                    return exam.fits(of, theta, laying) and keeps(of, theta, laying)

                if cap >= 1 and fine(cap):
                    rate = tokens // exam.least_theta(cap, fine)
                    yield Earner(rate, laying, label.gpus)
