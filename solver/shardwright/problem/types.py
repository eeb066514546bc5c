"""The integer problem: what every formulation reads, compiled once per instance.

Times are nanoseconds rounded up, rates thousandths of a token per second rounded
down, sizes bytes; ``ROUNDING`` states it in every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.law import ReplicaTimes, rate_mtok_per_s, replica_times
from shardwright.cost.lengths import ceil_div, ceil_fraction
from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY

IntArray = NDArray[np.int64]

ROUNDING = {
    "times_ns": "each layer and each stage constant rounded up",
    "rate_mtok_per_s": "rounded down",
    "price_micro_usd_per_hour": "rounded up",
}


@dataclass(frozen=True)
class Island:
    """GPUs of one class that reach one another over fast links, and are free."""

    gpu_class: int
    node: str
    gpus: tuple[int, ...]

    @property
    def free(self) -> int:
        """Number of usable GPUs."""
        return len(self.gpus)


@dataclass(frozen=True)
class GpuClass:
    """Interchangeable GPUs. ``capacity_bytes`` is what a stage may use of each."""

    name: str
    free_gpus: int
    capacity_bytes: int
    price_micro_usd_per_hour: int


@dataclass(frozen=True)
class Unit:
    """A GPU group that hosts one stage: a class and a tensor-parallel degree."""

    gpu_class: int
    tp: int

    @property
    def gpus(self) -> int:
        """GPUs of the unit."""
        return self.tp


@dataclass(frozen=True)
class Point:
    """An operating point (docs/cost-model.md section 2)."""

    sequences: int
    micro_batches: int
    micro_batch: int
    prompt_tokens: int
    chunk_tokens: int
    chunk_count: int
    chunk_work: int


@dataclass(frozen=True)
class Tables:
    """Integer cost tables; o = point, u = unit, g = layer kind, r = role, k = class.

    Shapes: decode_layer, prefill_layer, comm_layer, memory_layer (o, u, g);
    decode_role, prefill_role, comm_role, memory_role (o, u, r); hop_intra,
    prefill_hop_intra (o, k); hop_inter, prefill_hop_inter (o, k, k). ns and bytes.
    """

    decode_layer: IntArray
    decode_role: IntArray
    prefill_layer: IntArray
    prefill_role: IntArray
    comm_layer: IntArray
    comm_role: IntArray
    memory_layer: IntArray
    memory_role: IntArray
    hop_intra: IntArray
    hop_inter: IntArray
    prefill_hop_intra: IntArray
    prefill_hop_inter: IntArray
    return_ns: int


@dataclass(frozen=True)
class Bounds:
    """Limits as integers; None means not limited. Shares are exact rationals."""

    tpot_ns: int | None = None
    prefill_ns: int | None = None
    ttft_ns: int | None = None
    e2e_ns: int | None = None
    rate_mtok_per_s: int | None = None
    spare_gpus: int = 0
    max_gpus: int | None = None
    max_cost_micro_usd_per_hour: int | None = None
    memory_imbalance: Fraction | None = None
    compute_imbalance: Fraction | None = None
    communication_share: Fraction | None = None
    max_stages: int = 16
    stages: int | None = None
    replicas: int | None = None
    split: tuple[int, ...] | None = None
    memory_fits: bool = True


@dataclass(frozen=True)
class Rules:
    """Engine rules that shape a replica."""

    micro_batches_equal_stages: bool = True
    equal_shape_per_stage: bool = True


@dataclass(frozen=True)
class StageChoice:
    """A stage of a design: unit index and layers [start, end)."""

    unit: int
    start: int
    end: int


@dataclass(frozen=True)
class Design:
    """A replica without GPU names.

    ``crossings[i]`` says whether the hop from stage i to i+1 leaves the island;
    segments are the maximal runs between crossings.
    """

    point: int
    stages: tuple[StageChoice, ...]
    crossings: tuple[bool, ...]

    def segment_runs(self) -> list[list[int]]:
        """Stage indices of every segment, in order."""
        runs = [[0]]
        for i, crossing in enumerate(self.crossings, start=1):
            if crossing:
                runs.append([])
            runs[-1].append(i)
        return runs


@dataclass(frozen=True)
class Figures:
    """Exact figures of one design; ``gpus`` counts per class."""

    times: ReplicaTimes
    rate_mtok_per_s: int
    decode_ns: tuple[int, ...]
    prefill_ns: tuple[int, ...]
    memory_bytes: tuple[int, ...]
    comm_ns: int
    gpus: tuple[int, ...]
    cost_micro_usd_per_hour: int

    @property
    def tpot_ns(self) -> int:
        """Time per output token."""
        return self.times.tpot_ns


Signature = tuple[tuple[int, int], ...]
"""Sorted (class, GPUs) of the segments of a design."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything a formulation may read. Indices are dense."""

    layer_kinds: tuple[int, ...]
    classes: tuple[GpuClass, ...]
    islands: tuple[Island, ...]
    units: tuple[Unit, ...]
    points: tuple[Point, ...]
    tables: Tables
    bounds: Bounds
    rules: Rules
    goals: tuple[str, ...]
    output_mean: Fraction

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return len(self.layer_kinds)

    @cached_property
    def kind_prefix(self) -> IntArray:
        """(L + 1, kinds): how many layers of each kind lie before a boundary."""
        kinds = self.tables.decode_layer.shape[2]
        steps = np.zeros((self.layers + 1, kinds), dtype=np.int64)
        for i, kind in enumerate(self.layer_kinds):
            steps[i + 1, kind] = 1
        return np.cumsum(steps, axis=0)

    @cached_property
    def uniform(self) -> bool:
        """Whether all layers are of one kind."""
        return len(set(self.layer_kinds)) == 1

    @cached_property
    def island_types(self) -> dict[tuple[int, int], list[int]]:
        """Indices of the islands of each (class, free GPUs)."""
        types: dict[tuple[int, int], list[int]] = {}
        for index, island in enumerate(self.islands):
            types.setdefault((island.gpu_class, island.free), []).append(index)
        return dict(sorted(types.items()))

    @property
    def usable_gpus(self) -> int:
        """GPUs that a fleet may use in all."""
        total = sum(k.free_gpus for k in self.classes) - self.bounds.spare_gpus
        if self.bounds.max_gpus is not None:
            total = min(total, self.bounds.max_gpus)
        return total

    @property
    def max_stages(self) -> int:
        """Most stages a replica can have."""
        return min(self.bounds.max_stages, self.layers, max(self.usable_gpus, 0))

    def stage_counts(self, point: int) -> range:
        """Stage counts p allowed at a point."""
        low, high = 1, self.max_stages
        if self.rules.micro_batches_equal_stages:
            low = max(low, self.points[point].micro_batches)
            high = min(high, self.points[point].micro_batches)
        if self.bounds.stages is not None:
            low, high = max(low, self.bounds.stages), min(high, self.bounds.stages)
        return range(low, high + 1)

    def prefill_budget_ns(self, point: int, tpot_ns: int) -> int | None:
        """Largest prefill latency allowed beside a TPOT; None without a limit."""
        b, q = self.bounds, self.points[point].micro_batches
        wait = ceil_div(tpot_ns, 2 * q)
        limits = []
        if b.prefill_ns is not None:
            limits.append(b.prefill_ns)
        if b.ttft_ns is not None:
            limits.append(b.ttft_ns - wait)
        if b.e2e_ns is not None:
            decode = ceil_fraction((self.output_mean - 1) * tpot_ns)
            limits.append(b.e2e_ns - wait - decode)
        return min(limits) if limits else None

    def latency_fits(
        self, point: int, times: ReplicaTimes, prefill: bool = True
    ) -> bool:
        """Rules tpot_limit, itl_limit and, if ``prefill``, the three on prefill."""
        if self.bounds.tpot_ns is not None and times.tpot_ns > self.bounds.tpot_ns:
            return False
        if not prefill:
            return True
        budget = self.prefill_budget_ns(point, times.tpot_ns)
        return budget is None or times.prefill_ns <= budget

    def stage_sum(
        self, layer: IntArray, role_table: IntArray, o: int, stage: StageChoice, r: int
    ) -> int:
        """One table summed over the layers of a stage, role part included."""
        counts = self.kind_prefix[stage.end] - self.kind_prefix[stage.start]
        return int(layer[o, stage.unit] @ counts) + int(role_table[o, stage.unit, r])

    def figures(self, design: Design) -> Figures:
        """Evaluate a design exactly (docs/cost-model.md section 5)."""
        t, o, p = self.tables, design.point, len(design.stages)
        roles = stage_roles(p)
        pairs = list(zip(design.stages, roles, strict=True))

        def column(layer: IntArray, role: IntArray) -> tuple[int, ...]:
            return tuple(self.stage_sum(layer, role, o, s, r) for s, r in pairs)

        decode = column(t.decode_layer, t.decode_role)
        prefill = column(t.prefill_layer, t.prefill_role)
        comm = sum(column(t.comm_layer, t.comm_role))
        hops, prefill_hops = self.hops(design)
        point = self.points[o]
        times = replica_times(
            point.micro_batches,
            point.chunk_count,
            decode,
            prefill,
            hops,
            prefill_hops,
            t.return_ns,
        )
        gpus = [0] * len(self.classes)
        for stage in design.stages:
            gpus[self.units[stage.unit].gpu_class] += self.units[stage.unit].gpus
        prices = (k.price_micro_usd_per_hour for k in self.classes)
        return Figures(
            times,
            rate_mtok_per_s(point.sequences, times.tpot_ns),
            decode,
            prefill,
            column(t.memory_layer, t.memory_role),
            comm + sum(hops) + (t.return_ns if p > 1 else 0),
            tuple(gpus),
            sum(n * price for n, price in zip(gpus, prices, strict=True)),
        )

    def hops(self, design: Design) -> tuple[list[int], list[int]]:
        """Decode and prefill hop times between consecutive stages, ns."""
        t, o = self.tables, design.point
        decode, prefill = [], []
        classes = [self.units[s.unit].gpu_class for s in design.stages]
        for a, b, cross in zip(
            classes[:-1], classes[1:], design.crossings, strict=True
        ):
            decode.append(int(t.hop_inter[o, a, b] if cross else t.hop_intra[o, a]))
            prefill.append(
                int(
                    t.prefill_hop_inter[o, a, b] if cross else t.prefill_hop_intra[o, a]
                )
            )
        return decode, prefill

    def signature(self, design: Design) -> Signature:
        """Sorted (class, GPUs) of the segments."""
        segments = []
        for run in design.segment_runs():
            units = [self.units[design.stages[i].unit] for i in run]
            segments.append((units[0].gpu_class, sum(u.gpus for u in units)))
        return tuple(sorted(segments))

    def design_fits(
        self, design: Design, figures: Figures | None = None, prefill: bool = True
    ) -> bool:
        """Every rule of one replica: memory, latency, balance, shares."""
        f = figures or self.figures(design)
        return (
            self._memory_fits(design, f)
            and self.latency_fits(design.point, f.times, prefill)
            and self._balanced(design, f)
        )

    def _memory_fits(self, design: Design, f: Figures) -> bool:
        if not self.bounds.memory_fits:
            return True
        return all(
            used <= self.classes[self.units[s.unit].gpu_class].capacity_bytes
            for s, used in zip(design.stages, f.memory_bytes, strict=True)
        )

    def _balanced(self, design: Design, f: Figures) -> bool:
        sizes = [self.units[s.unit].gpus for s in design.stages]
        b = self.bounds
        return (
            within_imbalance(f.memory_bytes, sizes, b.memory_imbalance)
            and within_imbalance(f.decode_ns, sizes, b.compute_imbalance)
            and (
                b.communication_share is None
                or f.comm_ns <= b.communication_share * f.times.loop_ns
            )
        )


def within_imbalance(
    values: Sequence[int], sizes: Sequence[int], tolerance: Fraction | None
) -> bool:
    """max v * G <= (1 + delta) * sum_s t_s v_s."""
    if tolerance is None:
        return True
    weighted = sum(v * t for v, t in zip(values, sizes, strict=True))
    return max(values) * sum(sizes) <= (1 + tolerance) * weighted


def stage_roles(stages: int) -> list[int]:
    """Role of every stage of a pipeline of ``stages``."""
    if stages == 1:
        return [ONLY]
    return [FIRST, *[MIDDLE] * (stages - 2), LAST]


@dataclass(frozen=True)
class PlacedReplica:
    """A design and the island of each of its segments."""

    design: Design
    islands: tuple[int, ...]


@dataclass(frozen=True)
class Fleet:
    """A choice of replicas with islands that hold them."""

    replicas: tuple[PlacedReplica, ...]


def crossings_of(homes: Sequence[int]) -> tuple[bool, ...]:
    """Which hops leave an island, from the island (or part) of every stage."""
    return tuple(a != b for a, b in zip(homes[:-1], homes[1:], strict=True))
