"""Integer tables of one operating point, recomputed for a certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from shardwright.check.engine import is_on
from shardwright.check.exact import NS_PER_MS, exact
from shardwright.check.lengths import Mix, mix_of
from shardwright.check.memory import memory_cap_bytes, memory_of
from shardwright.check.stage import (
    Layout,
    Point,
    StageView,
    balanced_iterations,
    has_experts,
    point_of,
)
from shardwright.check.times import hop_ns, return_ns, stage_time
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind
from shardwright.schema.plan import OperatingPoint

MIDDLE, FIRST, LAST, ONLY = range(4)
_PLACES = {MIDDLE: (1, 3), FIRST: (0, 2), LAST: (1, 2), ONLY: (0, 1)}


class NotCovered(Exception):
    """A rule of the instance that certificates do not know."""


@dataclass(frozen=True)
class UnitRow:
    """One unit at one point: ns per layer, ns per stage and most layers by role."""

    kind: int
    gpus: int
    layer_ns: int
    stage_ns: tuple[int, int, int, int]
    most: tuple[int, int, int, int]


@dataclass(frozen=True)
class PointRows:
    """Everything that the walks read at one (M, q). hop[a][b]; inside[a]."""

    tokens: int
    micro_batches: int
    layers: int
    units: tuple[UnitRow, ...]
    hop: tuple[tuple[int, ...], ...]
    inside: tuple[int, ...]
    back: int


class PointTables:
    """Rows of any operating point of an instance; equal parts are computed once.

    Raises NotCovered for instances with a rule that the proof leaves out.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        _require_covered(instance)
        self.types = tuple(dict.fromkeys(g.gpu for g in instance.cluster.nodes))
        self._times: dict[tuple[object, ...], tuple[int, tuple[int, ...]]] = {}
        self._bytes: dict[tuple[object, ...], int] = {}
        self._hops: dict[int, tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]] = {}

    @cached_property
    def mix(self) -> Mix:
        """Moments of the workload."""
        return mix_of(self.instance.workload)

    @cached_property
    def layers(self) -> int:
        """L."""
        return len(self.instance.model.kind_indices())

    @cached_property
    def _kind(self) -> LayerKind:
        model = self.instance.model
        return model.layer_kinds[model.kind_indices()[0]]

    @cached_property
    def islands(self) -> tuple[dict[int, int], ...]:
        """Per type: usable GPUs of an island -> how many islands have as many."""
        found: list[dict[int, int]] = [{} for _ in self.types]
        cluster = self.instance.cluster
        for group in cluster.nodes:
            lost = {*group.reserved, *group.failed}
            size = cluster.island_size(group) if group.islands is None else 0
            listed = group.islands or [
                range(i, min(i + size, group.gpus)) for i in range(0, group.gpus, size)
            ]
            mine = found[self.types.index(group.gpu)]
            for island in listed:
                free = len({*island} - lost)
                if free:
                    mine[free] = mine.get(free, 0) + group.count
        return tuple(found)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(type, tp) that the engine allows on an island."""
        found = []
        most = self.instance.limits.max_tensor_parallel
        fixed = self.instance.fix.tp
        if most is not None and any(
            max(sizes, default=most) < most for sizes in self.islands
        ):
            raise NotCovered("max_tensor_parallel above an island's GPUs")
        for k, sizes in enumerate(self.islands):
            for tp in range(1, max(sizes, default=0) + 1):
                allowed = (most is None or tp <= most) and fixed in (None, tp)
                if allowed and self._divides(tp):
                    found.append((k, tp))
        return tuple(found)

    def _divides(self, tp: int) -> bool:
        if not is_on(self.instance, "heads_divisible"):
            return True
        kinds = (k.attention for k in self.instance.model.layer_kinds)
        return all(
            a is None
            or (a.heads % tp == 0 and (a.kv_heads % tp == 0 or tp % a.kv_heads == 0))
            for a in kinds
        )

    def unit_sets(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Units that may share a replica."""
        if not is_on(self.instance, "equal_shape_per_stage"):
            return (self.shapes,)
        widths = sorted({tp for _, tp in self.shapes})
        return tuple(tuple(s for s in self.shapes if s[1] == tp) for tp in widths)

    @cached_property
    def limit_ns(self) -> int:
        """The tightest limit on mean TPOT. Raises NotCovered without any."""
        margin = 1 + exact(self.instance.limits.latency_margin or 0.0)
        limits = [
            math.floor(exact(t.limit_ms) * NS_PER_MS / margin)
            for t in self.instance.slo
            if t.metric in ("tpot", "itl") and t.percentile == "mean"
        ]
        if not limits:
            raise NotCovered("no limit on mean TPOT")
        return min(limits)

    def rows(
        self, sequences: int, micro_batches: int, chunks: tuple[int, ...]
    ) -> tuple[PointRows, ...]:
        """Rows for every set of units; () where no chunk feeds the batch."""
        point = self._point(sequences, micro_batches, chunks[0])
        feeding = [c for c in sorted(chunks) if c >= point.prompt_tokens]
        if sequences < micro_batches or not feeding:
            return ()
        point = self._point(sequences, micro_batches, feeding[0])
        hop, inside = self._hop_rows(point)
        back = return_ns(self.instance)
        return tuple(
            PointRows(
                10**12 * sequences,
                micro_batches,
                self.layers,
                tuple(self._unit(point, k, tp) for k, tp in units),
                hop,
                inside,
                back,
            )
            for units in self.unit_sets()
        )

    def _point(self, sequences: int, micro_batches: int, chunk: int) -> Point:
        claimed = OperatingPoint(
            sequences=sequences,
            micro_batches=micro_batches,
            micro_batch_sequences=-(-sequences // micro_batches),
            prefill_chunk_tokens=chunk,
            prompt_tokens=0,
            chunk_count=1,
        )
        return point_of(claimed, "mixed", self.mix)

    def _view(self, point: Point, k: int, tp: int, role: int, layers: int) -> StageView:
        kind = self._kind
        index, stages = _PLACES[role]
        return StageView(
            instance=self.instance,
            mix=self.mix,
            point=point,
            spec=self.instance.cluster.gpu_types[self.types[k]],
            layout=Layout(tp=tp, moe_tp=tp),
            kinds=(kind,) * layers,
            index=index,
            stages=stages,
        )

    def _unit(self, point: Point, k: int, tp: int) -> UnitRow:
        layer, stage = self._stage_times(point, k, tp)
        cap = memory_cap_bytes(self.instance, self._view(point, k, tp, 0, 0).spec)
        each = self._memory(point, k, tp, MIDDLE, 1) - self._memory(
            point, k, tp, MIDDLE, 0
        )
        most = []
        for role in range(4):
            room = cap - self._memory(point, k, tp, role, 0)
            most.append(min(self.layers, room // max(1, each)) if room >= 0 else 0)
        return UnitRow(k, tp, layer, stage, tuple(most))  # type: ignore[arg-type]

    def _stage_times(
        self, point: Point, k: int, tp: int
    ) -> tuple[int, tuple[int, int, int, int]]:
        key = (point.micro_batch_sequences, k, tp)
        if key not in self._times:
            constants = []
            for role in range(4):
                view = self._view(point, k, tp, role, 0)
                constants.append(stage_time(view, balanced_iterations(view)).total_ns)
            view = self._view(point, k, tp, MIDDLE, 1)
            whole = stage_time(view, balanced_iterations(view)).total_ns
            self._times[key] = whole - constants[MIDDLE], tuple(constants)
        return self._times[key]  # type: ignore[return-value]

    def _memory(self, point: Point, k: int, tp: int, role: int, layers: int) -> int:
        if layers:
            key: tuple[object, ...] = ("layer", point.sequences, k, tp)
            if key not in self._bytes:
                with_one = memory_of(self._view(point, k, tp, role, 1)).total()
                self._bytes[key] = with_one - self._memory(point, k, tp, role, 0)
            return self._bytes[key] + self._memory(point, k, tp, role, 0)
        key = (point.micro_batch_sequences, point.chunk, k, tp, role)
        if key not in self._bytes:
            self._bytes[key] = memory_of(self._view(point, k, tp, role, 0)).total()
        return self._bytes[key]

    def _hop_rows(
        self, point: Point
    ) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        m = point.micro_batch_sequences
        if m not in self._hops:
            tokens = m + point.prompt_tokens
            views = [self._view(point, k, 1, 0, 0) for k in range(len(self.types))]
            across = tuple(
                tuple(hop_ns(a, b, tokens, False) for b in views) for a in views
            )
            self._hops[m] = across, tuple(hop_ns(a, a, tokens, True) for a in views)
        return self._hops[m]


def _require_covered(instance: Instance) -> None:
    """Raises NotCovered where a rule would make the tables wrong."""
    model = instance.model
    reasons = {
        "layers of several kinds": len(set(model.kind_indices())) > 1,
        "experts": has_experts(model),
        "pools of prefill and decode replicas": instance.pools != "mixed",
        "targets on percentiles": any(t.percentile != "mean" for t in instance.slo),
    }
    for reason, found in reasons.items():
        if found:
            raise NotCovered(reason)
