"""From documents to integers: the one place where figures are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import floor

import numpy as np

from shardwright.cost.lengths import RequestMix, ceil_fraction, exact
from shardwright.cost.memory import (
    ROLES,
    RankLayer,
    activation_bytes,
    communication_bytes,
    framework_bytes,
    stage_weight_bytes,
)
from shardwright.cost.times import StageClock, hop_ns
from shardwright.problem.grid import (
    PointGrid,
    chunk_values,
    micro_batch_values,
    sequence_values,
)
from shardwright.problem.integers import Problem
from shardwright.problem.limits import EngineSwitches, bounds_of
from shardwright.problem.types import (
    GpuClass,
    IntArray,
    Island,
    Point,
    Rules,
    Tables,
    Unit,
    stage_roles,
)
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class Compiler:
    """Compiles one instance; the parts are cached because the grid needs them."""

    instance: Instance

    @cached_property
    def mix(self) -> RequestMix:
        """Moments of the workload."""
        return RequestMix.of(self.instance.workload)

    @cached_property
    def switches(self) -> EngineSwitches:
        """Engine rules in force."""
        return EngineSwitches.of(self.instance)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """GPU types in use, in the order of the file."""
        used = {group.gpu for group in self.instance.cluster.nodes}
        return tuple(n for n in self.instance.cluster.gpu_types if n in used)

    @cached_property
    def islands(self) -> tuple[Island, ...]:
        """Islands with at least one free GPU, in file order."""
        index = {name: i for i, name in enumerate(self.class_names)}
        found = []
        for group in self.instance.cluster.nodes:
            size = self.instance.cluster.island_size(group)
            taken = set(group.reserved) | set(group.failed)
            parts = [
                tuple(g for g in range(s, min(s + size, group.gpus)) if g not in taken)
                for s in range(0, group.gpus, size)
            ]
            for node in group.node_names():
                found += [Island(index[group.gpu], node, p) for p in parts if p]
        return tuple(found)

    @cached_property
    def classes(self) -> tuple[GpuClass, ...]:
        """GPU classes with capacity and price."""
        share = exact(self.instance.limits.memory_fraction)
        found = []
        for i, name in enumerate(self.class_names):
            gpu = self.instance.cluster.gpu_types[name]
            free = sum(s.free for s in self.islands if s.gpu_class == i)
            price = exact(gpu.price_usd_per_hour or 0.0)
            capacity = floor(share * gpu.memory_bytes)
            found.append(GpuClass(name, free, capacity, ceil_fraction(price * 10**6)))
        return tuple(found)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Stage units that fit an island and the rule heads_divisible."""
        limit = self.instance.limits.max_tensor_parallel
        found = []
        for k in range(len(self.classes)):
            largest = max((s.free for s in self.islands if s.gpu_class == k), default=0)
            top = min(largest, limit or largest)
            found += [Unit(k, tp) for tp in range(1, top + 1) if self._allowed(tp)]
        return tuple(found)

    def _allowed(self, tp: int) -> bool:
        fixed = self.instance.fix.tp
        if fixed is not None and tp != fixed:
            return False
        return not self.switches.heads_divisible or all(
            kind.attention.heads % tp == 0
            and (kind.attention.kv_heads % tp == 0 or tp % kind.attention.kv_heads == 0)
            for kind in self.instance.model.layer_kinds
            if kind.attention is not None
        )

    @cached_property
    def ranks(self) -> dict[int, tuple[RankLayer, ...]]:
        """Shards of every layer kind, by tensor-parallel degree."""
        model = self.instance.model
        return {
            tp: tuple(RankLayer.of(model, kind, tp) for kind in model.layer_kinds)
            for tp in sorted({unit.tp for unit in self.units})
        }

    @cached_property
    def max_stages(self) -> int:
        """Most stages worth a point of the grid."""
        limits = self.instance.limits
        total = sum(k.free_gpus for k in self.classes)
        return min(limits.max_pipeline_stages, len(self.instance.model.layers), total)

    @cached_property
    def grid(self) -> PointGrid:
        """The grid of operating points."""
        equal = self.switches.micro_batches_equal_stages
        chunks = chunk_values(self.instance)
        return PointGrid(
            sequence_values(self.instance, self._memory_limited(chunks)),
            chunks,
            micro_batch_values(self.instance, equal, self.max_stages),
            equal,
        )

    def _memory_limited(self, chunks: tuple[int, ...]) -> set[int]:
        """Largest M, and the largest multiple of p, of every homogeneous shape."""
        if self.instance.grid.sequences or self.instance.fix.sequences:
            return set()
        found: set[int] = set()
        for unit, stages in self._homogeneous_shapes():
            for chunk in {chunks[0], chunks[-1]}:
                top = self._largest_batch(unit, stages, chunk)
                if top >= stages:
                    found |= {top, top - top % stages}
        return found

    def _homogeneous_shapes(self) -> Iterator[tuple[Unit, int]]:
        fixed = self.instance.fix.pp
        for unit in self.units:
            free = self.classes[unit.gpu_class].free_gpus
            for stages in range(1, min(self.max_stages, free // unit.tp) + 1):
                if fixed is None or stages == fixed:
                    yield unit, stages

    def _largest_batch(self, unit: Unit, stages: int, chunk: int) -> int:
        """Largest M whose memory fits on ``stages`` units, 0 when none does."""
        low, high = 0, self.instance.workload.max_batch
        while low < high:
            middle = (low + high + 1) // 2
            if self._memory_fits(unit, stages, middle, chunk):
                low = middle
            else:
                high = middle - 1
        return low

    def _memory_fits(self, unit: Unit, stages: int, batch: int, chunk: int) -> bool:
        """Greedy filling, exact for a chain: every stage takes all it can."""
        capacity = self.classes[unit.gpu_class].capacity_bytes
        kinds = self.instance.model.kind_indices()
        per_kind = self._kind_bytes(unit, batch)
        position = 0
        for role in stage_roles(stages):
            left = capacity - self.role_bytes(unit, role, batch, stages, chunk)
            if left < 0:
                return False
            while position < len(kinds) and per_kind[kinds[position]] <= left:
                left -= per_kind[kinds[position]]
                position += 1
        return position == len(kinds)

    def _kind_bytes(self, unit: Unit, batch: int) -> list[int]:
        return [
            rank.weight_bytes(self.instance.precision)
            + rank.kv_bytes(self.instance.precision, self.mix.kv_tokens(batch), batch)
            for rank in self.ranks[unit.tp]
        ]

    def role_bytes(self, unit: Unit, role: int, batch: int, q: int, chunk: int) -> int:
        """Bytes of a stage outside its layers."""
        model, precision = self.instance.model, self.instance.precision
        gpu = self.instance.cluster.gpu_types[self.class_names[unit.gpu_class]]
        micro_batch = -(-batch // q)
        tokens = micro_batch + chunk
        logit_rows = micro_batch + ceil_fraction(chunk / self.mix.prompt_work)
        return (
            stage_weight_bytes(model, precision, unit.tp, role)
            + activation_bytes(
                model, precision, self.ranks[unit.tp], tokens, logit_rows, role
            )
            + communication_bytes(model, precision, gpu, unit.tp, tokens, role)
            + framework_bytes(gpu, self.instance.limits)
        )

    def tables(self, points: tuple[Point, ...]) -> Tables:
        """All integer cost tables."""
        shape = (len(points), len(self.units), len(self.instance.model.layer_kinds))
        layer = {n: np.zeros(shape, np.int64) for n in _LAYER_TABLES}
        role = {n: np.zeros((*shape[:2], len(ROLES)), np.int64) for n in _LAYER_TABLES}
        columns = _Columns.of(points)
        for u, unit in enumerate(self.units):
            self._fill_times(u, unit, columns, layer, role)
            self._fill_memory(u, unit, points, layer["memory"], role["memory"])
        hops = self._hops(columns)
        return Tables(
            layer["decode"],
            role["decode"],
            layer["prefill"],
            role["prefill"],
            layer["comm"],
            role["comm"],
            layer["memory"],
            role["memory"],
            *hops,
            return_ns=self._return_ns(),
        )

    def _fill_times(
        self,
        u: int,
        unit: Unit,
        at: _Columns,
        layer: dict[str, IntArray],
        role: dict[str, IntArray],
    ) -> None:
        gpu = self.instance.cluster.gpu_types[self.class_names[unit.gpu_class]]
        clock = StageClock(
            self.instance.model, self.instance.precision, self.mix, gpu, unit.tp
        )
        for g, rank in enumerate(self.ranks[unit.tp]):
            total, comm = clock.layer(rank, at.sequences, at.balanced)
            layer["decode"][:, u, g], layer["comm"][:, u, g] = total, comm
            layer["prefill"][:, u, g] = clock.layer(rank, at.sequences, at.chunk)[0]
        for r in range(len(ROLES)):
            total, comm = clock.stage_constant(r, at.sequences, at.balanced)
            role["decode"][:, u, r], role["comm"][:, u, r] = total, comm
            chunk = clock.stage_constant(r, at.sequences, at.chunk)[0]
            role["prefill"][:, u, r] = chunk

    def _fill_memory(
        self,
        u: int,
        unit: Unit,
        points: tuple[Point, ...],
        layer: IntArray,
        role: IntArray,
    ) -> None:
        by_batch = {m: self._kind_bytes(unit, m) for m in {p.sequences for p in points}}
        by_load: dict[tuple[int, int], list[int]] = {}
        for o, point in enumerate(points):
            layer[o, u] = by_batch[point.sequences]
            key = (point.micro_batch, point.chunk_tokens)
            if key not in by_load:
                by_load[key] = [
                    self.role_bytes(unit, r, point.micro_batch, 1, point.chunk_tokens)
                    for r in range(len(ROLES))
                ]
            role[o, u] = by_load[key]

    def _hops(self, at: _Columns) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        n, k = at.sequences.size, len(self.classes)
        intra = [np.zeros((n, k), np.int64) for _ in range(2)]
        inter = [np.zeros((n, k, k), np.int64) for _ in range(2)]
        model, precision = self.instance.model, self.instance.precision
        gpus = [self.instance.cluster.gpu_types[name] for name in self.class_names]
        for i, tokens in enumerate((at.balanced, at.chunk)):
            carried = at.sequences + tokens
            for a in range(k):
                within = hop_ns(model, precision, gpus[a], gpus[a], True)
                intra[i][:, a] = within(carried)
                for b in range(k):
                    across = hop_ns(model, precision, gpus[a], gpus[b], False)
                    inter[i][:, a, b] = across(carried)
        return intra[0], inter[0], intra[1], inter[1]

    def _return_ns(self) -> int:
        types = self.instance.cluster.gpu_types
        latencies = (
            types[name].calibration.network_latency_us for name in self.class_names
        )
        return ceil_fraction(max(exact(us) for us in latencies) * 1000)

    def problem(self) -> Problem:
        """The compiled problem."""
        points = self.grid.points(self.mix)
        return Problem(
            layer_kinds=self.instance.model.kind_indices(),
            classes=self.classes,
            islands=self.islands,
            units=self.units,
            points=points,
            tables=self.tables(points),
            bounds=bounds_of(self.instance, self.mix.output_mean),
            rules=Rules(
                self.switches.micro_batches_equal_stages,
                self.switches.equal_shape_per_stage,
            ),
            goals=self.instance.goals(),
            output_mean=self.mix.output_mean,
        )


_LAYER_TABLES = ("decode", "prefill", "comm", "memory")


@dataclass(frozen=True)
class _Columns:
    """The points as arrays of numbers."""

    sequences: np.ndarray[tuple[int], np.dtype[np.float64]]
    balanced: np.ndarray[tuple[int], np.dtype[np.float64]]
    chunk: np.ndarray[tuple[int], np.dtype[np.float64]]

    @classmethod
    def of(cls, points: tuple[Point, ...]) -> _Columns:
        return cls(
            np.array([p.micro_batch for p in points], dtype=np.float64),
            np.array([p.prompt_tokens for p in points], dtype=np.float64),
            np.array([p.chunk_work for p in points], dtype=np.float64),
        )


def compile_problem(instance: Instance) -> Problem:
    """Compile an instance into integers."""
    return Compiler(instance).problem()
