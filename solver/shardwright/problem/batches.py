"""Batches worth a point of the grid: the largest that memory and TPOT allow.

For every homogeneous replica (one unit, p stages) the largest M that fits in memory,
the same rounded down to a multiple of q, and the largest multiples of q whose TPOT
keeps its limit, by an even split of the layers and by the mean of the stages. They
only choose the grid: every design is evaluated exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import floor

import numpy as np

from shardwright.cost.lengths import ceil_div, exact
from shardwright.cost.memory import LAST, ONLY, ROLES
from shardwright.cost.times import Load, hop_ns
from shardwright.problem.context import copies_stand_alone
from shardwright.problem.costing import StageCosts
from shardwright.problem.types import GpuClass, IntArray, Unit, stage_roles


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
            for unit, stages in self._shapes():
                for q in [stages] if equal_stages else micro_batches:
                    if q in found:
                        found[q] |= self._of(unit, stages, q)
        return {
            q: tuple(sorted(m for m in some if m >= q)) for q, some in found.items()
        }

    def _shapes(self) -> Iterator[tuple[Unit, int]]:
        fixed = self.costs.instance.fix.pp
        alone = copies_stand_alone(self.costs.instance)
        for unit in self.units:
            free = self.classes[unit.gpu_class].free_gpus
            most = min(self.max_stages, free // unit.gpus)
            most = min(most, 1) if alone and unit.shape.moe_dp > 1 else most
            for stages in range(1, most + 1):
                if fixed is None or stages == fixed:
                    yield unit, stages

    def _of(self, unit: Unit, stages: int, q: int) -> set[int]:
        found: set[int] = set()
        tops = [
            self._by_memory(unit, stages, q, chunk)
            for chunk in sorted({self.chunks[0], self.chunks[-1]})
        ]
        for top in tops:
            found |= {top, top - top % q}
        if max(tops):
            found |= self._by_tpot(unit, stages, q, max(tops))
        return found

    def _by_memory(self, unit: Unit, stages: int, q: int, chunk: int) -> int:
        """Largest M whose memory fits on ``stages`` units, 0 when none does."""
        low, high = 0, self.costs.instance.workload.max_batch
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(unit, stages, q, middle, chunk):
                low = middle
            else:
                high = middle - 1
        return low

    def _fits(self, unit: Unit, stages: int, q: int, batch: int, chunk: int) -> bool:
        """Greedy filling, exact for a chain: every stage takes all it can."""
        capacity = self.classes[unit.gpu_class].capacity_bytes
        kinds, costs = self._kinds, self.costs
        per_kind = costs.kind_bytes(unit, batch)
        micro_batch, position = ceil_div(batch, q), 0
        if len(per_kind) == 1 and not unit.shape.disaggregated:
            return self._uniform_fits(unit, stages, micro_batch, chunk, per_kind[0])
        experts = costs.expert_kind_bytes(unit)
        apart = capacity - costs.expert_role_bytes(unit, micro_batch, chunk)
        for role in stage_roles(stages):
            left = capacity - costs.role_bytes(unit, role, micro_batch, chunk)
            room = apart
            if min(left, room) < 0:
                return False
            while position < len(kinds):
                kind = kinds[position]
                if per_kind[kind] > left or experts[kind] > room:
                    break
                left, room = left - per_kind[kind], room - experts[kind]
                position += 1
        return position == len(kinds)

    def _uniform_fits(
        self, unit: Unit, stages: int, micro_batch: int, chunk: int, layer_bytes: int
    ) -> bool:
        """``_fits`` where all layers are alike: they are only counted."""
        capacity, most = self.classes[unit.gpu_class].capacity_bytes, 0
        for role, count in Counter(stage_roles(stages)).items():
            left = capacity - self.costs.role_bytes(unit, role, micro_batch, chunk)
            if left < 0:
                return False
            most += count * (left // max(1, layer_bytes))
        return most >= len(self._kinds)

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


@dataclass(frozen=True)
class _Curves:
    """ns by micro-batch size 1, 2, ...: all layers, each role's constant, a hop."""

    layers: IntArray
    role: tuple[IntArray, ...]
    hop: IntArray
