"""Batches worth a point of the grid: the largest that memory and TPOT allow.

For every homogeneous replica (one unit, p stages) the largest M that fits in memory,
the same rounded down to a multiple of q, and the largest multiples of q whose TPOT
keeps its limit, by an even split of the layers and by the mean of the stages. They
only choose the grid: every design is evaluated exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import floor

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.lengths import ceil_div, exact
from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY, ROLES
from shardwright.cost.times import Load, hop_ns
from shardwright.problem.context import copies_stand_alone
from shardwright.problem.costing import StageCosts
from shardwright.problem.types import GpuClass, IntArray, Unit, stage_roles

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class LargestBatches:
    """Largest batches of the homogeneous replicas of one instance."""

    costs: StageCosts
    classes: tuple[GpuClass, ...]
    units: tuple[Unit, ...]
    max_stages: int
    chunks: tuple[int, ...]

    def by_micro_batches(
        self, micro_batches: tuple[int, ...], equal_stages: bool
    ) -> dict[int, tuple[int, ...]]:
        """q -> batches, ascending; nothing where the grid or ``fix`` lists them."""
        instance = self.costs.instance
        found: dict[int, set[int]] = {q: set() for q in micro_batches}
        if instance.grid.sequences is None and instance.fix.sequences is None:
            for unit in self.units:
                for stages, q, largest in self._cases(unit, found, equal_stages):
                    found[q] |= self._of(unit, stages, q, largest)
        return {
            q: tuple(sorted(m for m in some if m >= q)) for q, some in found.items()
        }

    def _cases(
        self, unit: Unit, micro_batches: Iterable[int], equal_stages: bool
    ) -> Iterator[tuple[int, int, list[int]]]:
        """(p, q, largest M by memory at the smallest and the largest chunk)."""
        fixed = self.costs.instance.fix.pp
        free = self.classes[unit.gpu_class].free_gpus
        most = min(self.max_stages, free // unit.gpus)
        if unit.shape.moe_dp > 1 and copies_stand_alone(self.costs.instance):
            most = min(most, 1)
        counts = range(1, most + 1)
        cases = [
            (stages, q)
            for stages in counts
            for q in micro_batches
            if fixed in (None, stages) and (q == stages or not equal_stages)
        ]
        if not cases:
            return
        stages, q = np.array(cases, dtype=np.int64).T
        tops = [
            self._by_memory(unit, stages, q, chunk)
            for chunk in sorted({self.chunks[0], self.chunks[-1]})
        ]
        for case, largest in zip(cases, zip(*tops, strict=True), strict=True):
            yield *case, [int(m) for m in largest]

    def _of(self, unit: Unit, stages: int, q: int, largest: list[int]) -> set[int]:
        found = {m for top in largest for m in (top, top - top % q)}
        if max(largest):
            found |= self._by_tpot(unit, stages, q, max(largest))
        return found

    def _by_memory(
        self, unit: Unit, stages: IntArray, q: IntArray, chunk: int
    ) -> IntArray:
        """Largest M whose memory fits on ``stages`` units, 0 when none does.

        Bisection, of all pairs of ``stages`` and ``q`` together.
        """
        low = np.zeros_like(stages)
        high = np.full_like(stages, self.costs.instance.workload.max_batch)
        while (low < high).any():
            middle = (low + high + 1) // 2
            fits = self._fits(unit, stages, q, middle, chunk)
            open_ = low < high
            low = np.where(open_ & fits, middle, low)
            high = np.where(open_ & ~fits, middle - 1, high)
        return low

    def _fits(
        self, unit: Unit, stages: IntArray, q: IntArray, batch: IntArray, chunk: int
    ) -> BoolArray:
        """Greedy filling, exact for a chain: every stage takes all it can."""
        capacity, costs = self.classes[unit.gpu_class].capacity_bytes, self.costs
        per_kind = costs.kind_bytes(unit, batch)
        m = -(-batch // q)
        left = capacity - costs.role_bytes(unit, m, np.full_like(m, chunk))
        room = capacity - costs.expert_role_bytes(unit, m + chunk)
        if per_kind.shape[1] == 1 and not unit.shape.disaggregated:
            return _uniform_fits(left, stages, per_kind[:, 0], len(self._kinds))
        kinds, length = list(self._kinds), len(self._kinds)
        each = np.stack([per_kind, np.zeros_like(per_kind)])
        each[1] += costs.expert_kind_bytes(unit)
        filled = np.zeros((2, batch.size, length + 1), dtype=np.int64)
        np.cumsum(each[:, :, kinds], axis=2, out=filled[:, :, 1:])
        rows, position = np.arange(batch.size), np.zeros_like(batch)
        fits = np.ones(batch.shape, dtype=np.bool_)
        for i in range(int(stages.max())):
            role = _role_at(i, stages)
            spare = np.stack([left[rows, role], room])
            reach = filled[:, rows, position] + np.maximum(spare, 0)
            ends = (filled <= reach[:, :, None]).sum(axis=2).min(axis=0) - 1
            used = i < stages
            fits &= ~used | (spare.min(axis=0) >= 0)
            position = np.where(used, ends, position)
        found: BoolArray = fits & (position == length)
        return found

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        return self.costs.instance.model.kind_indices()

    @cached_property
    def _limit_ns(self) -> int | None:
        slo = self.costs.instance.slo
        limits = [
            t.limit_ms
            for t in slo
            if t.metric in ("tpot", "itl") and t.percentile == "mean"
        ]
        margin = exact(self.costs.instance.limits.latency_margin or 0.0)
        return floor(exact(min(limits)) * 10**6 / (1 + margin)) if limits else None

    def _by_tpot(self, unit: Unit, stages: int, q: int, top: int) -> set[int]:
        """Largest multiples of q within the TPOT limit, none above ``top``."""
        if self._limit_ns is None:
            return set()
        found = set()
        for tpot in self._tpot_ns(unit, stages, q, ceil_div(top, q)):
            within = np.flatnonzero(tpot <= self._limit_ns)
            if within.size:
                found.add(min(top, q * (int(within[-1]) + 1)))
        return found

    def _tpot_ns(
        self, unit: Unit, stages: int, q: int, most: int
    ) -> tuple[IntArray, IntArray]:
        """TPOT of micro-batches of 1 to ``most``: an even split's, and T the mean's."""
        curves = self._curves(unit)
        layers, hop = curves.layers[:most], curves.hop[:most]
        ends = sum(curves.role[r][:most] for r in stage_roles(stages))
        loop = layers + ends + (stages - 1) * hop
        last = curves.role[ONLY if stages == 1 else LAST][:most]
        even = -(-layers // stages) + last
        mean = -(-(layers + ends) // stages)
        return np.maximum(q * even, loop), np.maximum(q * mean, loop)

    @cached_property
    def _known(self) -> dict[Unit, _Curves]:
        return {}

    def _curves(self, unit: Unit) -> _Curves:
        """Times of a unit at micro-batches of 1 to ``max_batch``, computed once."""
        if unit in self._known:
            return self._known[unit]
        clock, mix = self.costs.clock(unit), self.costs.mix
        m = np.arange(1, self.costs.instance.workload.max_batch + 1, dtype=np.float64)
        prompts = np.ceil(m * float(mix.prompt_work / mix.output_mean))
        carried = np.full_like(m, mix.carried_prompt)
        load = Load.balanced(m, prompts, carried, unit.shape.attn_dp)
        layers = sum(
            self._kinds.count(g) * clock.layer(rank, load)[0]
            for g, rank in enumerate(self.costs.ranks(unit.shape))
        )
        role = tuple(clock.stage_constant(r, load)[0] for r in range(len(ROLES)))
        instance, gpu = self.costs.instance, self.costs.gpu(unit)
        hop = hop_ns(instance.model, instance.precision, gpu, gpu, True)(m + prompts)
        self._known[unit] = _Curves(np.asarray(layers), role, hop)
        return self._known[unit]


def _role_at(place: int, stages: IntArray) -> IntArray:
    """Role of stage ``place`` in pipelines of ``stages``."""
    inner = np.where(place == stages - 1, LAST, FIRST if place == 0 else MIDDLE)
    return np.where(stages == 1, ONLY, inner)


def _uniform_fits(
    left: IntArray, stages: IntArray, layer_bytes: IntArray, length: int
) -> BoolArray:
    """The filling where all layers are alike: they are only counted.

    ``left``: bytes for layers by role, (N, roles).
    """
    most = left // np.maximum(1, layer_bytes)[:, None]
    several = most[:, FIRST] + most[:, LAST] + (stages - 2) * most[:, MIDDLE]
    layers = np.where(stages == 1, most[:, ONLY], several)
    ends = np.minimum(left[:, FIRST], left[:, LAST])
    inner = np.where(stages > 2, np.minimum(ends, left[:, MIDDLE]), ends)
    least = np.where(stages == 1, left[:, ONLY], inner)
    found: BoolArray = (least >= 0) & (layers >= length)
    return found


@dataclass(frozen=True)
class _Curves:
    """ns by micro-batch size 1, 2, ...: all layers, each role's constant, a hop."""

    layers: IntArray
    role: tuple[IntArray, ...]
    hop: IntArray
