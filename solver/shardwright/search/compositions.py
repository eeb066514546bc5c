"""Compositions: which units a replica has on each island it touches.

A part is the multiset of units of one replica on one island. Islands of a class with
equal free GPUs are alike, so a composition is a multiset of parts; its signature
(class and GPUs of every part) is all that packing needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice, product
from math import prod

from shardwright.problem import Problem, Signature
from shardwright.schema.errors import InstanceTooLarge

MAX_COMPOSITIONS = 30_000
_MAX_COMBINED = 3_000_000
_MANY_OPTIONS = 4_000
_MANY_COMBINED = 300_000


@dataclass(frozen=True, order=True)
class Part:
    """Units (indices, sorted, with repeats) of one replica on one island."""

    gpu_class: int
    units: tuple[int, ...]


@dataclass(frozen=True)
class Composition:
    """The parts of one replica, sorted."""

    parts: tuple[Part, ...]
    signature: Signature

    @cached_property
    def stages(self) -> int:
        """Number of stages p."""
        return sum(len(part.units) for part in self.parts)

    @cached_property
    def single_unit(self) -> int | None:
        """The unit when all stages use one, else None."""
        units = {u for part in self.parts for u in part.units}
        return next(iter(units)) if len(units) == 1 else None


def compositions(problem: Problem) -> tuple[list[Composition], bool]:
    """Compositions that one replica can have, in a fixed order, and whether all.

    When there are too many, only those that touch as few islands of each class as
    their units allow are listed: no others have shorter hops, though others may pack
    better. Raises InstanceTooLarge when even these exceed ``MAX_COMPOSITIONS``.
    """
    for fewest_parts in (False, True):
        found = _listed(problem, fewest_parts)
        if found is not None:
            return found, not fewest_parts
    raise InstanceTooLarge(
        f"more than {MAX_COMPOSITIONS} ways to compose a replica; limits that help: "
        "max_pipeline_stages, max_tensor_parallel, equal_shape_per_stage, fix"
    )


def too_many(problem: Problem) -> bool:
    """Whether listing compositions is slow or incomplete, told without listing them."""
    for units in _unit_choices(problem):
        options = 1
        for k in range(len(problem.classes)):
            some = islice(_class_options(problem, k, units), _MANY_OPTIONS + 1)
            mine = sum(1 for _ in some)
            if mine > _MANY_OPTIONS:
                return True
            options *= mine
        if options > _MANY_COMBINED:
            return True
    return False


def _listed(problem: Problem, fewest_parts: bool) -> list[Composition] | None:
    """The compositions, or None when there are too many."""
    found: list[Composition] = []
    for units in _unit_choices(problem):
        per_class = []
        for k in range(len(problem.classes)):
            options = list(
                islice(_class_options(problem, k, units), MAX_COMPOSITIONS + 1)
            )
            if len(options) > MAX_COMPOSITIONS:
                return None
            per_class.append(_with_fewest_parts(options) if fewest_parts else options)
        if prod(len(options) for options in per_class) > _MAX_COMBINED:
            return None
        for chosen in product(*per_class):
            composition = _compose(problem, [p for parts in chosen for p in parts])
            if composition is not None:
                found.append(composition)
            if len(found) > MAX_COMPOSITIONS:
                return None
    return found


def _with_fewest_parts(options: list[tuple[Part, ...]]) -> list[tuple[Part, ...]]:
    """Options whose units cannot be held by fewer parts."""
    least: dict[tuple[int, ...], int] = {}
    units = [tuple(sorted(u for p in parts for u in p.units)) for parts in options]
    for key, parts in zip(units, options, strict=True):
        least[key] = min(least.get(key, len(parts)), len(parts))
    return [
        parts
        for key, parts in zip(units, options, strict=True)
        if len(parts) == least[key]
    ]


def _unit_choices(problem: Problem) -> list[list[int]]:
    """Units that may share a replica: of one shape under equal_shape_per_stage, and
    always where disaggregated."""
    indices = list(range(len(problem.units)))
    shape = {u: problem.units[u].shape for u in indices}
    tied = problem.rules.equal_shape_per_stage
    apart = [u for u in indices if tied or shape[u].disaggregated]
    alike = [[u for u in apart if shape[u] == s] for s in sorted({*shape.values()})]
    free = [u for u in indices if u not in set(apart)]
    return [group for group in (free, *alike) if group]


def _compose(problem: Problem, parts: list[Part]) -> Composition | None:
    places = [place for part in parts for place in _places(problem, part)]
    sizes = [size for _, size in places]
    stages = sum(len(part.units) for part in parts)
    if not 1 <= stages <= problem.max_stages or sum(sizes) > problem.usable_gpus:
        return None
    if problem.bounds.stages is not None and stages != problem.bounds.stages:
        return None
    units = {u for part in parts for u in part.units}
    if stages > 1 and any(map(problem.stands_alone, units)):
        return None
    return Composition(tuple(sorted(parts)), tuple(sorted(places)))


def _places(problem: Problem, part: Part) -> list[tuple[int, int]]:
    """(class, GPUs) on every island of a part."""
    islands = problem.units[part.units[0]].islands
    gpus = sum(problem.units[u].gpus for u in part.units)
    return [(part.gpu_class, gpus // islands)] * islands


def _class_options(
    problem: Problem, gpu_class: int, units: list[int]
) -> Iterator[tuple[Part, ...]]:
    """Multisets of parts of one class that lie on distinct islands, none included."""
    mine = [u for u in units if problem.units[u].gpu_class == gpu_class]
    free = sorted(
        (s.free for s in problem.islands if s.gpu_class == gpu_class), reverse=True
    )
    single = [u for u in mine if problem.units[u].islands == 1]
    candidates = [
        _Candidate(Part(gpu_class, chosen), size, 1)
        for chosen, size in _multisets(problem, single, free[0] if free else 0)
    ]
    for u in mine:
        shape = problem.units[u].shape
        if shape.islands > 1:
            part = Part(gpu_class, (u,))
            candidates.append(_Candidate(part, shape.gpus_per_island, shape.islands))
    candidates.sort(key=lambda c: (-c.size, c.part))
    yield from _choose(candidates, free, problem.max_stages, 0, (), 0)


def _multisets(
    problem: Problem, units: list[int], room: int
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Non-empty multisets of units with at most ``room`` GPUs."""

    def grow(
        start: int, chosen: tuple[int, ...], size: int
    ) -> Iterator[tuple[tuple[int, ...], int]]:
        if chosen:
            yield chosen, size
        if len(chosen) == problem.max_stages:
            return
        for i in range(start, len(units)):
            more = size + problem.units[units[i]].gpus
            if more <= room:
                yield from grow(i, (*chosen, units[i]), more)

    yield from grow(0, (), 0)


@dataclass(frozen=True)
class _Candidate:
    """A part that takes ``size`` GPUs on each of ``islands`` islands."""

    part: Part
    size: int
    islands: int


def _choose(
    candidates: list[_Candidate],
    free: list[int],
    stages_left: int,
    start: int,
    chosen: tuple[Part, ...],
    used: int,
) -> Iterator[tuple[Part, ...]]:
    """Parts in order of decreasing size: the i-th largest needs the i-th island."""
    yield chosen
    for i in range(start, len(candidates)):
        c = candidates[i]
        after = used + c.islands
        if after > len(free) or c.size > free[after - 1]:
            continue
        left = stages_left - len(c.part.units)
        if left >= 0:
            yield from _choose(candidates, free, left, i, (*chosen, c.part), after)


def run_lengths(values: tuple[int, ...]) -> list[tuple[int, int]]:
    """(value, count) of a sorted tuple."""
    return [(value, len(list(group))) for value, group in groupby(values)]
