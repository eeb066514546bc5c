"""The compiled problem: integers, and the exact evaluation of a design."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from shardwright.cost.law import ReplicaTimes, rate_mtok_per_s, replica_times
from shardwright.cost.lengths import ceil_div, ceil_fraction
from shardwright.problem.percentiles import LoadModel, PercentileModel
from shardwright.problem.types import (
    NO_TRANSFER,
    Bounds,
    Design,
    Figures,
    GpuClass,
    IntArray,
    Island,
    MemoryRow,
    Point,
    Rules,
    Signature,
    StageChoice,
    Tables,
    Transfer,
    Unit,
    stage_roles,
)


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
    transfer: Transfer = NO_TRANSFER
    load: LoadModel | None = None

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

    @cached_property
    def island_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Free GPUs of the islands of every class, most first."""
        found: list[list[int]] = [[] for _ in self.classes]
        for island in self.islands:
            found[island.gpu_class].append(island.free)
        return tuple(tuple(sorted(free, reverse=True)) for free in found)

    @cached_property
    def memory_rows(self) -> tuple[MemoryRow, ...]:
        """Memory of attention GPUs (or of all), and of expert GPUs where there are."""
        t = self.tables
        gpus = tuple(u.shape.attention_gpus for u in self.units)
        rows = [MemoryRow(t.memory_layer, t.memory_role, gpus)]
        if t.expert_memory_layer is not None and t.expert_memory_role is not None:
            gpus = tuple(u.shape.expert_gpus for u in self.units)
            rows.append(MemoryRow(t.expert_memory_layer, t.expert_memory_role, gpus))
        return tuple(rows)

    def may_join(self, left: int, right: int) -> bool:
        """Whether stages of two units may share a replica.

        equal_shape_per_stage; disaggregated stages only stand beside their like.
        """
        a, b = self.units[left].shape, self.units[right].shape
        apart = a.disaggregated or b.disaggregated
        return a == b or not (apart or self.rules.equal_shape_per_stage)

    def stands_alone(self, unit: int) -> bool:
        """Whether a stage of the unit holds all layers (engine_shape)."""
        copies = self.units[unit].shape.moe_dp
        return self.rules.copies_stand_alone and copies > 1

    def may_hold(self, unit: int, start: int, end: int) -> bool:
        """Whether a stage of the unit may hold the layers [start, end)."""
        return (start, end) == (0, self.layers) or not self.stands_alone(unit)

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

    @cached_property
    def percentiles(self) -> PercentileModel | None:
        """The model of the percentile targets; None without any."""
        if not self.bounds.targets:
            return None
        if self.load is None:
            raise ValueError("percentile targets need the problem's load model")
        return PercentileModel(
            self.load,
            self.bounds.targets,
            self.points,
            self.units,
            self.kind_prefix,
            self.transfer.ns * 1e-9,
            self.output_mean,
        )

    def stage_counts(self, point: int) -> range:
        """Stage counts p allowed at a point."""
        low, high = 1, self.max_stages
        if self.rules.micro_batches_equal_stages:
            low = max(low, self.points[point].micro_batches)
            high = min(high, self.points[point].micro_batches)
        if self.bounds.stages is not None:
            low, high = max(low, self.bounds.stages), min(high, self.bounds.stages)
        return range(low, high + 1)

    def tpot_limit_ns(self, point: int) -> int | None:
        """The TPOT limit at a point; a prefill replica makes no output tokens."""
        prefill = self.points[point].role == "prefill"
        return None if prefill else self.bounds.tpot_ns

    def caching_gpus(self, units: Iterable[int]) -> int:
        """GPUs of stages of these units that hold KV cache."""
        return sum(self.units[u].shape.attention_gpus for u in units)

    def rate_mtok_per_s(self, point: int, period_ns: int, gpus: int) -> int:
        """Rate of a replica with KV cache on ``gpus`` GPUs, as far as links carry."""
        rate = rate_mtok_per_s(self.points[point].period_tokens, period_ns)
        each = self.transfer.mtok_per_s_per_gpu
        if self.points[point].role == "mixed" or each is None:
            return rate
        return min(rate, gpus * each)

    def transfer_ns(self, point: int) -> int:
        """What fetching the KV cache adds to the TTFT of a prefill replica."""
        return self.transfer.ns if self.points[point].role == "prefill" else 0

    def prefill_budget_ns(self, point: int, tpot_ns: int) -> int | None:
        """Largest prefill latency allowed beside a TPOT; None without a limit."""
        b, q = self.bounds, self.points[point].micro_batches
        if self.points[point].role == "decode":
            return None
        wait = ceil_div(tpot_ns, 2 * q) + self.transfer_ns(point)
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
        tpot_limit = self.tpot_limit_ns(point)
        if tpot_limit is not None and times.tpot_ns > tpot_limit:
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
            self.transfer_ns(o),
        )
        gpus = [0] * len(self.classes)
        for stage in design.stages:
            gpus[self.units[stage.unit].gpu_class] += self.units[stage.unit].gpus
        prices = (k.price_micro_usd_per_hour for k in self.classes)
        caching = self.caching_gpus(s.unit for s in design.stages)
        memory = [column(row.layer, row.role) for row in self.memory_rows]
        return Figures(
            times,
            self.rate_mtok_per_s(o, times.tpot_ns, caching),
            decode,
            prefill,
            memory[0],
            comm + sum(hops) + (t.return_ns if p > 1 else 0),
            tuple(gpus),
            sum(n * price for n, price in zip(gpus, prices, strict=True)),
            point.role,
            *memory[1:],
        )

    def rated(self, design: Design) -> Figures:
        """``figures`` with the rate at which the percentile targets hold as well."""
        figures, model = self.figures(design), self.percentiles
        if model is None:
            return figures
        kept = model.rate_mtok(model.station(design))
        return replace(figures, rate_mtok_per_s=min(figures.rate_mtok_per_s, kept))

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
            spread = units[0].islands
            size = sum(u.gpus for u in units) // spread
            segments += [(units[0].gpu_class, size)] * spread
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
            for memory in (f.memory_bytes, f.expert_memory_bytes)
            for s, used in zip(design.stages, memory, strict=bool(memory))
        )

    def _balanced(self, design: Design, f: Figures) -> bool:
        sizes = [self.units[s.unit].gpus for s in design.stages]
        memory = (*f.memory_bytes, *f.expert_memory_bytes)
        held = [row.gpus[s.unit] for row in self.memory_rows for s in design.stages]
        b = self.bounds
        return (
            within_imbalance(memory, held, b.memory_imbalance)
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
