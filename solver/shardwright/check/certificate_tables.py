"""Integer tables of one operating point, recomputed for a certificate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from shardwright.check.engine import is_on, may_choose_context
from shardwright.check.exact import NS_PER_MS, exact, whole_ns
from shardwright.check.lengths import Mix, mix_of
from shardwright.check.memory import (
    activation_bytes,
    communication_bytes,
    framework_bytes,
    kv_cache_bytes,
    layer_weight_bytes,
    memory_cap_bytes,
    weights_bytes,
)
from shardwright.check.stage import (
    Layout,
    Point,
    StageView,
    balanced_iterations,
    has_experts,
    point_of,
)
from shardwright.check.times import constant_seconds, hop_ns, layer_ns, return_ns
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind
from shardwright.schema.plan import OperatingPoint

MIDDLE, FIRST, LAST, ONLY = range(4)
_NO_TIMES = (1, (1, 1, 1, 1))
"""Of a unit that cannot hold a layer."""
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


def most_layers(most: int, room: int, each: int) -> int:
    """How many layers of a size fit, at most ``most``; some take nothing at all."""
    if room < 0:
        return 0
    return min(most, room // each) if each else most


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
        self._worth: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._hops: dict[int, tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]] = {}
        most = instance.limits.max_tensor_parallel or 0
        if any(max(sizes, default=most) < most for sizes in self.islands):
            raise NotCovered("max_tensor_parallel above an island's GPUs")

    @cached_property
    def mix(self) -> Mix:
        """Moments of the workload."""
        return mix_of(self.instance.workload)

    @cached_property
    def layers(self) -> int:
        """L."""
        return len(self.instance.model.kind_indices())

    @cached_property
    def kind(self) -> LayerKind:
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
    def free_gpus(self) -> int:
        """Usable GPUs of all types."""
        return sum(f * n for sizes in self.islands for f, n in sizes.items())

    @cached_property
    def costs(self) -> tuple[int | None, ...]:
        """10^-6 USD/h of a GPU of each type, rounded up; None: not given."""
        specs = self.instance.cluster.gpu_types
        given = (specs[name].price_usd_per_hour for name in self.types)
        return tuple(None if p is None else math.ceil(exact(p) * 10**6) for p in given)

    def knapsack(self, prices: tuple[int, ...]) -> tuple[int, ...]:
        """[free]: the most that segments on an island with so many GPUs cost."""
        if prices not in self._worth:
            best = [0]
            for room in range(1, len(prices) + 1):
                sizes = range(1, room + 1)
                most = max(best[room - z] + prices[z - 1] for z in sizes)
                best.append(max(best[-1], most))
            self._worth[prices] = tuple(best)
        return self._worth[prices]

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(type, tp) that the engine allows on an island."""
        found = []
        most = self.instance.limits.max_tensor_parallel
        fixed = self.instance.fix.tp
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
    def limit_ns(self) -> int | None:
        """The tightest limit on mean TPOT."""
        margin = 1 + exact(self.instance.limits.latency_margin or 0.0)
        limits = [
            math.floor(exact(t.limit_ms) * NS_PER_MS / margin)
            for t in self.instance.slo
            if t.metric in ("tpot", "itl") and t.percentile == "mean"
        ]
        return min(limits, default=None)

    def stage_counts(self, micro_batches: int) -> range:
        """Stages that a replica may have at a point."""
        low, high = 1, min(self.instance.limits.max_pipeline_stages, self.layers)
        fixed = [self.instance.fix.pp] if self.instance.fix.pp is not None else []
        if is_on(self.instance, "micro_batches_equal_stages"):
            fixed.append(micro_batches)
        for stages in fixed:
            low, high = max(low, stages), min(high, stages)
        return range(low, high + 1)

    def rows(
        self, sequences: int, micro_batches: int, chunks: tuple[int, ...]
    ) -> tuple[PointRows, ...]:
        """Rows for every set of units; () where no chunk feeds the batch."""
        point = self.point(sequences, micro_batches, chunks[0])
        feeding = [c for c in sorted(chunks) if c >= point.prompt_tokens]
        if sequences < micro_batches or not feeding:
            return ()
        point = self.point(sequences, micro_batches, feeding[0])
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

    def variants(
        self, sequences: int, micro_batches: int, chunks: tuple[int, ...]
    ) -> tuple[Point, ...]:
        """The point with every chunk that feeds the batch."""
        points = (self.point(sequences, micro_batches, c) for c in sorted(chunks))
        return tuple(p for p in points if p.chunk >= p.prompt_tokens)

    def point(self, sequences: int, micro_batches: int, chunk: int) -> Point:
        claimed = OperatingPoint(
            sequences=sequences,
            micro_batches=micro_batches,
            micro_batch_sequences=-(-sequences // micro_batches),
            prefill_chunk_tokens=chunk,
            prompt_tokens=0,
            chunk_count=1,
        )
        return point_of(claimed, "mixed", self.mix)

    def view(self, point: Point, k: int, tp: int, role: int, layers: int) -> StageView:
        """A stage of the only kind of layers."""
        kind = self.kind
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
        each, cap = self.layer_bytes(point, k, tp), self.cap_bytes(k)
        most = []
        for role in range(4):
            room = cap - self.stage_bytes(point, k, tp, role)
            most.append(most_layers(self.layers, room, each))
        layer, stage = self._stage_times(point, k, tp) if any(most) else _NO_TIMES
        return UnitRow(k, tp, layer, stage, tuple(most))  # type: ignore[arg-type]

    def _stage_times(
        self, point: Point, k: int, tp: int
    ) -> tuple[int, tuple[int, int, int, int]]:
        key = (point.micro_batch_sequences, k, tp)
        if key not in self._times:
            view = self.view(point, k, tp, MIDDLE, 0)
            iterations = balanced_iterations(view)
            middle, first, last = (
                constant_seconds(self.view(point, k, tp, role, 0), iterations)
                for role in (MIDDLE, FIRST, LAST)
            )
            parts = (middle, first, last, first + last - middle)
            constants = tuple(map(whole_ns, parts))
            self._times[key] = layer_ns(view, self.kind, iterations), constants
        return self._times[key]  # type: ignore[return-value]

    def cap_bytes(self, k: int) -> int:
        """What a GPU of a type may hold."""
        return self._once(
            ("cap", k),
            lambda: memory_cap_bytes(
                self.instance, self.instance.cluster.gpu_types[self.types[k]]
            ),
        )

    def layer_bytes(self, point: Point, k: int, tp: int) -> int:
        """Weights of one layer and the cache of all sequences for it."""
        weights = self._once(
            ("layer", k, tp),
            lambda: layer_weight_bytes(self.view(point, k, tp, MIDDLE, 1), self.kind),
        )
        return weights + self._once(
            ("cache", tp, point.sequences),
            lambda: kv_cache_bytes(self.view(point, k, tp, MIDDLE, 1)),
        )

    def stage_bytes(self, point: Point, k: int, tp: int, role: int) -> int:
        """A stage without layers."""
        size = point.micro_batch_sequences, point.chunk
        return self._once(
            ("stage", k, tp, role, *size),
            lambda: self._by_parts(self.view(point, k, tp, role, 0), k, tp, role),
        )

    def _by_parts(self, view: StageView, k: int, tp: int, role: int) -> int:
        """Each part depends on few things, and is computed once."""
        size = view.point.micro_batch_sequences, view.point.chunk
        return (
            self._once(("weights", k, tp, role), lambda: weights_bytes(view))
            + self._once(
                ("activations", tp, view.last, *size), lambda: activation_bytes(view)
            )
            + self._once(
                ("buffers", k, tp, view.stages > 1, *size),
                lambda: communication_bytes(view),
            )
            + self._once(("framework", k), lambda: framework_bytes(view))
        )

    def _once(self, key: tuple[object, ...], compute: Callable[[], int]) -> int:
        if key not in self._bytes:
            self._bytes[key] = compute()
        return self._bytes[key]

    def _hop_rows(
        self, point: Point
    ) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        m = point.micro_batch_sequences
        if m not in self._hops:
            tokens = m + point.prompt_tokens
            views = [self.view(point, k, 1, 0, 0) for k in range(len(self.types))]
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
        "context parallelism": may_choose_context(instance),
        "pools of prefill and decode replicas": instance.pools != "mixed",
        "measured latencies": instance.engine.latencies != "analytic",
    }
    for reason, found in reasons.items():
        if found:
            raise NotCovered(reason)


def left_out(instance: Instance) -> tuple[str, ...]:
    """Rules that proofs leave out: a bound may then be better than the optimum."""
    limits, fix = instance.limits, instance.fix
    percentiles = [
        f"{t.metric} P{t.percentile:g}" for t in instance.slo if t.percentile != "mean"
    ]
    found = {
        f"targets on percentiles ({', '.join(percentiles)})": bool(percentiles),
        "communication_share": limits.communication_share is not None,
        "survive": bool(limits.survive),
        "fix.dp": fix.dp is not None,
        "fix.layers": fix.layers is not None,
        "topology": any(g.topology is not None for g in instance.cluster.nodes),
    }
    return tuple(rule for rule, there in found.items() if there)
