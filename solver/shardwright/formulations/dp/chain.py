"""Chains of one stage unit: the exact least TPOT of a homogeneous replica.

With a single unit every split of the layers has the same S, the same sum of prefill
times and the same total memory, so only the largest stage matters, and the largest
stage of a chain is minimised exactly by greedy filling under a bisected cap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import floor

from shardwright.cost.lengths import ceil_div
from shardwright.problem import (
    Design,
    IntArray,
    Problem,
    StageChoice,
    stage_roles,
)


@dataclass(frozen=True)
class Load:
    """One additive quantity along the layers: prefix sums and role extras."""

    prefix: list[int]
    extras: list[int]

    @property
    def total(self) -> int:
        """Sum over the whole chain."""
        return self.prefix[-1] + sum(self.extras)

    def of(self, stage: int, start: int, end: int) -> int:
        """Amount of a stage that holds [start, end)."""
        return self.prefix[end] - self.prefix[start] + self.extras[stage]

    def reach(self, stage: int, start: int, cap: int) -> int:
        """Furthest end of a stage from ``start`` within ``cap``."""
        room = cap - self.extras[stage] + self.prefix[start]
        return bisect_right(self.prefix, room) - 1

    def back(self, stage: int, end: int, cap: int) -> int:
        """Earliest start of a stage that ends at ``end`` within ``cap``."""
        return bisect_left(self.prefix, self.prefix[end] - cap + self.extras[stage])


@dataclass(frozen=True)
class Chain:
    """``stages`` copies of one unit at one operating point.

    ``crossings`` is how many of its hops leave an island; ``prefill_binds`` whether the
    prefill budget is kept.
    """

    problem: Problem
    unit: int
    point: int
    stages: int
    crossings: int
    prefill_binds: bool = True

    def _load(self, layer: IntArray, role: IntArray) -> Load:
        steps = self.problem.kind_prefix @ layer[self.point, self.unit]
        extras = role[self.point, self.unit]
        roles = stage_roles(self.stages)
        return Load(steps.tolist(), [int(extras[r]) for r in roles])

    @cached_property
    def decode(self) -> Load:
        """Decode time, ns."""
        t = self.problem.tables
        return self._load(t.decode_layer, t.decode_role)

    @cached_property
    def prefill(self) -> Load:
        """Prefill time, ns."""
        t = self.problem.tables
        return self._load(t.prefill_layer, t.prefill_role)

    @cached_property
    def memory(self) -> tuple[Load, ...]:
        """Memory of each sort of GPU, bytes."""
        rows = self.problem.memory_rows
        return tuple(self._load(row.layer, row.role) for row in rows)

    @cached_property
    def _class(self) -> int:
        return self.problem.units[self.unit].gpu_class

    def _hops(self, intra: IntArray, inter: IntArray) -> int:
        k, o = self._class, self.point
        inside = self.stages - 1 - self.crossings
        return int(inside * intra[o, k] + self.crossings * inter[o, k, k])

    @cached_property
    def loop_ns(self) -> int:
        """S, the same for every split."""
        t = self.problem.tables
        hops = self._hops(t.hop_intra, t.hop_inter)
        back = t.return_ns if self.stages > 1 else 0
        return self.decode.total + hops + back

    @cached_property
    def prefill_sum_ns(self) -> int:
        """Prefill latency without its max term."""
        t = self.problem.tables
        hops = self._hops(t.prefill_hop_intra, t.prefill_hop_inter)
        return self.prefill.total + hops

    @cached_property
    def memory_cap(self) -> int:
        """memory_fits and memory_imbalance: the total is fixed, so both are caps."""
        b, unit = self.problem.bounds, self.problem.units[self.unit]
        cap = max(load.total for load in self.memory)
        if b.memory_fits:
            cap = min(cap, self.problem.classes[self._class].capacity_bytes)
        pairs = zip(self.problem.memory_rows, self.memory, strict=True)
        total = sum(row.gpus[self.unit] * load.total for row, load in pairs)
        gpus = self.stages * unit.gpus
        return min(cap, _share(b.memory_imbalance, total, gpus))

    @cached_property
    def stage_cap_ns(self) -> int:
        """compute_imbalance and tpot_limit as a cap on every stage."""
        b = self.problem.bounds
        total = self.decode.total
        cap = _share(b.compute_imbalance, total, self.stages)
        limit = self.problem.tpot_limit_ns(self.point)
        if limit is not None:
            q = self.problem.points[self.point].micro_batches
            cap = min(cap, limit // q)
        return cap

    def possible(self) -> bool:
        """Rules that no split can change."""
        b = self.problem.bounds
        limit = self.problem.tpot_limit_ns(self.point)
        if limit is not None and self.loop_ns > limit:
            return False
        return b.communication_share is None or (
            self._comm_ns() <= b.communication_share * self.loop_ns
        )

    def _comm_ns(self) -> int:
        t = self.problem.tables
        comm = self._load(t.comm_layer, t.comm_role).total
        back = t.return_ns if self.stages > 1 else 0
        return comm + self._hops(t.hop_intra, t.hop_inter) + back

    def fills(self, stage_cap: int, prefill_cap: int) -> bool:
        """Whether greedy filling under the caps covers all layers."""
        if self.problem.uniform:
            return self._fills_uniform(stage_cap, prefill_cap)
        layers, position = self.problem.layers, 0
        for stage in range(self.stages):
            end = self._reach(stage, position, stage_cap, prefill_cap)
            if end <= position:
                return False
            position = min(end, layers - (self.stages - 1 - stage))
        return position == layers

    @cached_property
    def _per_layer(self) -> tuple[int, ...]:
        loads = (self.decode, self.prefill, *self.memory)
        return tuple(load.prefix[1] for load in loads)

    def _fills_uniform(self, stage_cap: int, prefill_cap: int) -> bool:
        """The same for layers of one kind: only how many each stage takes counts."""
        loads = (self.decode, self.prefill, *self.memory)
        caps = (stage_cap, prefill_cap, *[self.memory_cap] * len(self.memory))
        total = 0
        ends = ((0, 1), (1, self.stages - 2), (self.stages - 1, 1))
        for stage, count in ends if self.stages > 1 else ((0, 1),):
            if count == 0:
                continue
            most = min(
                most_layers(cap - load.extras[stage], each, self.problem.layers)
                for cap, load, each in zip(caps, loads, self._per_layer, strict=True)
            )
            if most < 1:
                return False
            total += count * most
        return total >= self.problem.layers

    def _reach(self, stage: int, start: int, stage_cap: int, prefill_cap: int) -> int:
        return min(
            self.decode.reach(stage, start, stage_cap),
            self.prefill.reach(stage, start, prefill_cap),
            *(load.reach(stage, start, self.memory_cap) for load in self.memory),
        )

    def least_stage_ns(self, prefill_cap: int) -> int | None:
        """Least T under a cap on every prefill stage time; None if impossible."""
        low, high = ceil_div(self.decode.total, self.stages), self.stage_cap_ns
        if low > high or not self.fills(high, prefill_cap):
            return None
        return _least(low, high, lambda cap: self.fills(cap, prefill_cap))

    def least_prefill_ns(self, stage_cap: int) -> int:
        """Least max sigma among splits with T <= ``stage_cap`` (there is one)."""
        low = ceil_div(self.prefill.total, self.stages)
        return _least(low, self.prefill.total, lambda cap: self.fills(stage_cap, cap))

    def best(self) -> Design | None:
        """The design of least TPOT within all rules, or None.

        The prefill budget shrinks as TPOT grows while the least TPOT grows as the
        budget shrinks, so iterating from below reaches the least TPOT that fits.
        """
        if self.stages > self.problem.layers or not self.possible():
            return None
        if self.problem.bounds.split is not None:
            return self._fixed_split(self.problem.bounds.split)
        q = self.problem.points[self.point].micro_batches
        least_tpot = max(q * ceil_div(self.decode.total, self.stages), self.loop_ns)
        prefill_cap = self._prefill_cap(least_tpot)
        if prefill_cap is None:
            prefill_cap = self.prefill.total
        if prefill_cap < ceil_div(self.prefill.total, self.stages):
            return None
        while True:
            stage = self.least_stage_ns(prefill_cap)
            if stage is None:
                return None
            tpot = max(q * stage, self.loop_ns)
            slack = min(max(stage, tpot // q), self.stage_cap_ns)
            least = self.least_prefill_ns(slack)
            allowed = self._prefill_cap(tpot)
            if allowed is None or least <= allowed:
                return self._spread(slack, least)
            prefill_cap = allowed

    def _prefill_cap(self, tpot_ns: int) -> int | None:
        """Largest max sigma that keeps the prefill budget; None without a limit."""
        budget = self.problem.prefill_budget_ns(self.point, tpot_ns)
        if budget is None or not self.prefill_binds:
            return None
        rest = budget - self.prefill_sum_ns
        repeats = self.problem.points[self.point].chunk_count - 1
        if rest < 0:
            return -1
        return self.prefill.total if repeats == 0 else rest // repeats

    def _spread(self, stage_cap: int, prefill_cap: int) -> Design:
        """Among the splits within the caps, one close to equal layer counts."""
        layers = self.problem.layers
        earliest = [layers] * (self.stages + 1)
        for stage in reversed(range(self.stages)):
            end = earliest[stage + 1]
            back = max(
                self.decode.back(stage, end, stage_cap),
                self.prefill.back(stage, end, prefill_cap),
                *(load.back(stage, end, self.memory_cap) for load in self.memory),
            )
            earliest[stage] = max(back, stage)
        ends, start = [], 0
        for stage in range(self.stages):
            even = round(layers * (stage + 1) / self.stages)
            reach = self._reach(stage, start, stage_cap, prefill_cap)
            reach = min(reach, layers - (self.stages - 1 - stage))
            low = max(earliest[stage + 1], start + 1)
            start = min(max(even, low), reach)
            ends.append(start)
        return self._design(ends)

    def _fixed_split(self, split: tuple[int, ...]) -> Design | None:
        if len(split) != self.stages or sum(split) != self.problem.layers:
            return None
        ends = [sum(split[: i + 1]) for i in range(self.stages)]
        design = self._design(ends)
        fits = self.problem.design_fits(
            self.crossed(design), prefill=self.prefill_binds
        )
        return design if fits else None

    def crossed(self, design: Design) -> Design:
        """The design with its first ``crossings`` hops leaving the island.

        Which hops leave it does not matter: all stages are of one class.
        """
        marks = tuple(i < self.crossings for i in range(self.stages - 1))
        return replace(design, crossings=marks)

    def _design(self, ends: Sequence[int]) -> Design:
        starts = [0, *ends[:-1]]
        stages = tuple(
            StageChoice(self.unit, a, b) for a, b in zip(starts, ends, strict=True)
        )
        return Design(self.point, stages, (False,) * (self.stages - 1))


def most_layers(room: int, each: int, layers: int) -> int:
    """Layers of cost ``each`` within ``room``: all of them when they cost nothing."""
    if room < 0:
        return -1
    return layers if each == 0 else min(layers, room // each)


def _share(tolerance: Fraction | None, total: int, parts: int) -> int:
    """Largest part allowed by an imbalance limit when the total is fixed."""
    return total if tolerance is None else floor((1 + tolerance) * total / parts)


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Smallest value in [low, high] for which a monotone test holds (high does)."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
