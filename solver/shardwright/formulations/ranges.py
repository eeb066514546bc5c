"""The cost tables summed over layer ranges: what arc programs and brute force read.

A stage on layers [i, j) has a role that follows from i and j alone: it is the first
stage when i = 0, the last when j = L, the only one when both hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.problem import IntArray, Problem
from shardwright.schema.errors import InstanceTooLarge

MAX_ENTRIES = 2_000_000

Cube = list[list[list[list[int]]]]
"""Indexed [point][unit][start][end]; meaningful for start < end."""


@dataclass(frozen=True)
class StageTables:
    """Exact figures of a stage for every point, unit and layer range."""

    problem: Problem

    @cached_property
    def decode(self) -> Cube:
        """Decode time, ns."""
        t = self.problem.tables
        return self._cube(t.decode_layer, t.decode_role)

    @cached_property
    def prefill(self) -> Cube:
        """Prefill time of one chunk, ns."""
        t = self.problem.tables
        return self._cube(t.prefill_layer, t.prefill_role)

    @cached_property
    def comm(self) -> Cube:
        """Communication part of the decode time, ns."""
        t = self.problem.tables
        return self._cube(t.comm_layer, t.comm_role)

    @cached_property
    def memory(self) -> Cube:
        """Bytes of the fullest GPU."""
        cube: Cube = np.max(self._memory, axis=0).tolist()
        return cube

    @cached_property
    def memory_of_all(self) -> Cube:
        """Bytes of all GPUs of the stage together."""
        gpus = [np.array(row.gpus) for row in self.problem.memory_rows]
        pairs = zip(self._memory, gpus, strict=True)
        cube: Cube = sum(m * n[None, :, None, None] for m, n in pairs).tolist()
        return cube

    def memory_by_sort(self, point: int, unit: int, start: int, end: int) -> list[int]:
        """Bytes of a GPU of every sort (``Problem.memory_rows``)."""
        return [cube[point][unit][start][end] for cube in self._memory_cubes]

    @cached_property
    def _memory_cubes(self) -> list[Cube]:
        return [sums.tolist() for sums in self._memory]

    @cached_property
    def _memory(self) -> list[IntArray]:
        return [self._sums(row.layer, row.role) for row in self.problem.memory_rows]

    def _cube(self, layer: IntArray, role: IntArray) -> Cube:
        cube: Cube = self._sums(layer, role).tolist()
        return cube

    def _sums(self, layer: IntArray, role: IntArray) -> IntArray:
        self.check_size()
        prefix = self.problem.kind_prefix
        counts = prefix[None, :, :] - prefix[:, None, :]
        total = np.einsum("oug,ijg->ouij", layer, counts)
        sums: IntArray = total + role[:, :, _roles(self.problem.layers)]
        return sums

    def check_size(self) -> None:
        """Refuse tables that are too large to be written out range by range."""
        points, units, _ = self.problem.tables.decode_layer.shape
        entries = points * units * (self.problem.layers + 1) ** 2
        if entries > MAX_ENTRIES:
            raise InstanceTooLarge(
                f"{points} points x {units} units x {self.problem.layers} layers "
                f"squared make {entries} stage figures; at most {MAX_ENTRIES} are "
                f"written out"
            )

    def fits_memory(self, point: int, unit: int, start: int, end: int) -> bool:
        """Rule memory_fits of one stage."""
        gpu_class = self.problem.classes[self.problem.units[unit].gpu_class]
        used = self.memory[point][unit][start][end]
        return not self.problem.bounds.memory_fits or used <= gpu_class.capacity_bytes

    def within_tpot(self, point: int, unit: int, start: int, end: int) -> bool:
        """Whether the stage alone keeps q tau <= the TPOT limit."""
        limit = self.problem.tpot_limit_ns(point)
        q = self.problem.points[point].micro_batches
        return limit is None or q * self.decode[point][unit][start][end] <= limit

    def allowed(self, point: int, unit: int, start: int, end: int) -> bool:
        """Rules of one stage on its own, layer split included."""
        return (
            self.in_split(start, end)
            and self.problem.may_hold(unit, start, end)
            and self.fits_memory(point, unit, start, end)
            and self.within_tpot(point, unit, start, end)
        )

    @cached_property
    def _split_ranges(self) -> frozenset[tuple[int, int]] | None:
        split = self.problem.bounds.split
        if split is None:
            return None
        ends = [sum(split[: i + 1]) for i in range(len(split))]
        if ends[-1] != self.problem.layers:
            return frozenset()
        return frozenset(zip([0, *ends[:-1]], ends, strict=True))

    def in_split(self, start: int, end: int) -> bool:
        """Rule fix: whether the range is one of a fixed split."""
        return self._split_ranges is None or (start, end) in self._split_ranges


def _roles(layers: int) -> IntArray:
    roles = np.full((layers + 1, layers + 1), MIDDLE, dtype=np.int64)
    roles[0, :] = FIRST
    roles[:, layers] = LAST
    roles[0, layers] = ONLY
    return roles
