"""From documents to integers: the one place where figures are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import floor
from typing import Any

import numpy as np

from shardwright.cost.latencies import refused_shapes
from shardwright.cost.lengths import RequestMix, ceil_fraction, exact
from shardwright.cost.memory import (
    ROLES,
)
from shardwright.cost.tails import RequestLaw
from shardwright.cost.times import Load, hop_ns
from shardwright.problem.batches import LargestBatches
from shardwright.problem.context import copies_stand_alone, degrees_document
from shardwright.problem.costing import StageCosts
from shardwright.problem.expert_maps import ExpertMaps
from shardwright.problem.grid import (
    PointGrid,
    chunk_values,
    micro_batch_values,
    sequence_values,
)
from shardwright.problem.integers import Problem
from shardwright.problem.laws import law_tables
from shardwright.problem.limits import EngineSwitches, bounds_of, percentile_targets
from shardwright.problem.percentiles import LoadModel
from shardwright.problem.shapes import ShapeRules
from shardwright.problem.transfer import kv_transfer
from shardwright.problem.types import (
    GpuClass,
    IntArray,
    Island,
    Point,
    Rules,
    Tables,
    Transfer,
    Unit,
)
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance, Pools


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
            taken = set(group.reserved) | set(group.failed)
            parts = [
                tuple(g for g in sorted(island) if g not in taken)
                for island in self.instance.cluster.islands(group)
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
        """Stage units with known times. InvalidInstance where there is none."""
        refused = self.refused_units
        known = tuple(u for u in self._allowed_units if u not in refused)
        if refused and not known:
            raise refused_shapes(tuple(refused.values()))
        return known

    @cached_property
    def refused_units(self) -> dict[Unit, str]:
        """Units that the engine allows and measured times leave out, and why."""
        reasons = {unit: self.costs.refusal(unit) for unit in self._allowed_units}
        return {unit: why for unit, why in reasons.items() if why is not None}

    @cached_property
    def _allowed_units(self) -> tuple[Unit, ...]:
        """Stage units: the shapes that the engine allows on each class's islands."""
        rules = ShapeRules(self.instance, self.switches)
        found = []
        for k in range(len(self.classes)):
            free = [s.free for s in self.islands if s.gpu_class == k]
            if free:
                found += [Unit(k, shape) for shape in rules.shapes(free, max(free))]
        return tuple(found)

    def grid_document(self) -> dict[str, Any]:
        """The grid as printed, and the shapes that measured times leave out."""
        document = self.grid.document() | degrees_document(self.instance)
        if self.refused_units:
            document["shapes_without_times"] = {
                unit_name(unit, self.class_names): why
                for unit, why in self.refused_units.items()
            }
        return document

    def latency_versions(self) -> dict[str, str]:
        """What the iteration times rest on, beyond the instance itself."""
        return self.costs.versions(self.units)

    @cached_property
    def maps(self) -> ExpertMaps:
        """Expert maps of the workload's loads."""
        return ExpertMaps(self.instance)

    @cached_property
    def costs(self) -> StageCosts:
        """Memory and times of stages."""
        return StageCosts(self.instance, self.mix, self.class_names, self.maps)

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
        micro_batches = micro_batch_values(self.instance, equal, self.max_stages)
        batches = LargestBatches(
            self.costs, self.classes, self.units, self.max_stages, chunks
        )
        return PointGrid(
            sequence_values(self.instance),
            self.instance.workload.max_batch,
            batches.by_micro_batches(micro_batches, equal),
            chunks,
            micro_batches,
            equal,
            self._pools,
            coarse=bool(percentile_targets(self.instance)),
        )

    @cached_property
    def _pools(self) -> Pools:
        """The pools asked for; an end-to-end limit ties both halves of a request."""
        pools = self.instance.pools
        if pools == "mixed" or not any(t.metric == "e2e" for t in self.instance.slo):
            return pools
        if pools == "disaggregated":
            raise UnsupportedRule("pools: disaggregated", "e2e_limit")
        return "mixed"

    def tables(self, points: tuple[Point, ...]) -> Tables:
        """All integer cost tables."""
        shape = (len(points), len(self.units), len(self.instance.model.layer_kinds))
        layer = {n: np.zeros(shape, np.int64) for n in _LAYER_TABLES}
        role = {n: np.zeros((*shape[:2], len(ROLES)), np.int64) for n in _LAYER_TABLES}
        columns = _Columns.of(points, self.mix.carried_prompt)
        like: dict[Unit, int] = {}
        for u, unit in enumerate(self.units):
            self._fill_times(u, unit, columns, layer, role)
            key = replace(unit, shape=unit.shape.for_attention_memory)
            if (same := like.setdefault(key, u)) == u:
                self._fill_memory(u, unit, columns, layer["memory"], role["memory"])
            for table in (layer["memory"], role["memory"]):
                table[:, u] = table[:, same]
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
            **self._expert_memory(columns),
        )

    def _expert_memory(self, at: _Columns) -> dict[str, IntArray]:
        """Memory of expert GPUs; nothing where no unit has any."""
        if not any(unit.shape.disaggregated for unit in self.units):
            return {}
        kinds = len(self.instance.model.layer_kinds)
        layer = np.zeros((at.batches.size, len(self.units), kinds), np.int64)
        role = np.zeros((at.batches.size, len(self.units), len(ROLES)), np.int64)
        tokens = at.micro_batches + at.chunks
        for u, unit in enumerate(self.units):
            if unit.shape.disaggregated:
                layer[:, u] = self.costs.expert_kind_bytes(unit)
                role[:, u] = self.costs.expert_role_bytes(unit, tokens)[:, None]
        return {"expert_memory_layer": layer, "expert_memory_role": role}

    def _fill_times(
        self,
        u: int,
        unit: Unit,
        at: _Columns,
        layer: dict[str, IntArray],
        role: dict[str, IntArray],
    ) -> None:
        clock = self.costs.clock(unit)
        dp = unit.shape.attn_dp
        balanced = Load.balanced(at.sequences, at.balanced, at.carried, dp)
        chunk = Load.lone_chunk(at.sequences, at.chunk, dp)
        for g, rank in enumerate(self.costs.ranks(unit.shape)):
            total, comm = clock.layer(rank, balanced)
            layer["decode"][:, u, g], layer["comm"][:, u, g] = total, comm
            layer["prefill"][:, u, g] = clock.layer(rank, chunk)[0] * at.has_prompts
        for r in range(len(ROLES)):
            total, comm = clock.stage_constant(r, balanced)
            role["decode"][:, u, r], role["comm"][:, u, r] = total, comm
            role["prefill"][:, u, r] = (
                clock.stage_constant(r, chunk)[0] * at.has_prompts
            )

    def _fill_memory(
        self, u: int, unit: Unit, at: _Columns, layer: IntArray, role: IntArray
    ) -> None:
        for prompts_only in (False, True):
            mine = np.flatnonzero(at.prompts_only == prompts_only)
            if mine.size:
                batches = at.batches[mine]
                layer[mine, u] = self.costs.kind_bytes(unit, batches, prompts_only)
        role[:, u] = self.costs.role_bytes(unit, at.micro_batches, at.chunks)

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
        intra[1] *= at.has_prompts[:, None]
        inter[1] *= at.has_prompts[:, None, None]
        return intra[0], inter[0], intra[1], inter[1]

    def _return_ns(self) -> int:
        types = self.instance.cluster.gpu_types
        latencies = (
            types[name].calibration.network_latency_us for name in self.class_names
        )
        return ceil_fraction(max(exact(us) for us in latencies) * 1000)

    @cached_property
    def transfer(self) -> Transfer:
        """Moving a prompt's KV cache between the pools."""
        if self._pools == "mixed":
            return Transfer()
        gpus = [self.instance.cluster.gpu_types[name] for name in self.class_names]
        return kv_transfer(
            self.costs,
            gpus,
            max(k.capacity_bytes for k in self.classes),
            one_island=len(self.islands) == 1,
            experts_apart=self.switches.disaggregated_experts,
        )

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
                copies_stand_alone(self.instance),
            ),
            goals=self.instance.goals(),
            output_mean=self.mix.output_mean,
            transfer=self.transfer,
            load=self._load(points),
        )

    def _load(self, points: tuple[Point, ...]) -> LoadModel | None:
        """What percentiles are computed from; nothing without a target on one."""
        if all(t.percentile == "mean" for t in self.instance.slo):
            return None
        return LoadModel(
            law_tables(self.costs, self.units, points, self._return_ns()),
            RequestLaw.of(self.instance.workload),
            ca2=self.instance.workload.arrivals.ca2,
        )


_LAYER_TABLES = ("decode", "prefill", "comm", "memory")


@dataclass(frozen=True)
class _Columns:
    """The points as arrays of numbers.

    ``carried`` is the piece of a prompt that lies on one attention rank; those of a
    prefill replica spread over all ranks. ``batches``: M; ``micro_batches``: m, of
    which ``sequences`` are floats; ``chunks``: prefill_chunk_tokens.
    """

    sequences: np.ndarray[tuple[int], np.dtype[np.float64]]
    has_prompts: np.ndarray[tuple[int], np.dtype[np.int64]]
    balanced: np.ndarray[tuple[int], np.dtype[np.float64]]
    chunk: np.ndarray[tuple[int], np.dtype[np.float64]]
    carried: np.ndarray[tuple[int], np.dtype[np.float64]]
    batches: np.ndarray[tuple[int], np.dtype[np.int64]]
    micro_batches: np.ndarray[tuple[int], np.dtype[np.int64]]
    chunks: np.ndarray[tuple[int], np.dtype[np.int64]]
    prompts_only: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @classmethod
    def of(cls, points: tuple[Point, ...], carried_prompt: int) -> _Columns:
        return cls(
            np.array([p.micro_batch for p in points], dtype=np.float64),
            np.array([p.role != "decode" for p in points], dtype=np.int64),
            np.array([p.prompt_tokens for p in points], dtype=np.float64),
            np.array([p.chunk_work for p in points], dtype=np.float64),
            np.array(
                [1 if p.role == "prefill" else carried_prompt for p in points],
                dtype=np.float64,
            ),
            np.array([p.sequences for p in points], dtype=np.int64),
            np.array([p.micro_batch for p in points], dtype=np.int64),
            np.array([p.chunk_tokens for p in points], dtype=np.int64),
            np.array([p.role == "prefill" for p in points], dtype=np.bool_),
        )


def unit_name(unit: Unit, class_names: Sequence[str]) -> str:
    """GPU type and degrees, as in a message."""
    shape = unit.shape
    degrees = f"tp {shape.tp}, attn_dp {shape.attn_dp}, moe_tp {shape.moe_tp}"
    degrees += f", cp {shape.cp}" if shape.cp > 1 else ""
    return f"{class_names[unit.gpu_class]} {degrees}, ep {shape.ep}, {unit.gpus} GPUs"


def compile_problem(instance: Instance) -> Problem:
    """Compile an instance into integers."""
    return Compiler(instance).problem()
