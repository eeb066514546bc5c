"""Many compositions at a time, as arrays, in blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shardwright.formulations.dp.relaxation import Compositions
from shardwright.problem import IntArray, Problem
from shardwright.search.compositions import Composition, run_lengths

_BLOCK = 20_000


def blocks(points: list[int], compositions: int) -> Iterator[list[int]]:
    """Points in blocks of at most ``_BLOCK`` pairs with the compositions."""
    size = max(1, _BLOCK // compositions)
    for start in range(0, len(points), size):
        yield points[start : start + size]


def as_arrays(problem: Problem, group: list[Composition]) -> Compositions:
    """Compositions as padded arrays of units, stage counts and parts."""
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
