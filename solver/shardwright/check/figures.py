"""Every figure of a plan, recomputed from the instance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from shardwright.check.exact import exact
from shardwright.check.inventory import Inventory, Island
from shardwright.check.law import Hops, Law, Service, replica_law, settled
from shardwright.check.lengths import Mix, mix_of
from shardwright.check.maps import MapKey, balanced, balances_of
from shardwright.check.memory import (
    expert_memory_of,
    memory_cap_bytes,
    memory_of,
)
from shardwright.check.stage import (
    Layout,
    Point,
    StageView,
    balanced_iterations,
    chunk_iterations,
    layout_of,
    point_of,
)
from shardwright.check.targets import percentile_targets
from shardwright.check.times import (
    StageTime,
    as_measured,
    hop_ns,
    return_ns,
    stage_time,
)
from shardwright.check.transfer import transfer_of
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind
from shardwright.schema.plan import (
    GpuRank,
    MemoryParts,
    Plan,
    PoolRole,
    Replica,
    ReplicaLoad,
    Stage,
)


@dataclass(frozen=True)
class StageFigures:
    """One stage: what is claimed (``stage``) and what it comes to.

    ``memory`` is of a GPU with attention, ``expert_memory`` of one with routed experts
    alone, None where there are none.
    """

    label: str
    stage: Stage
    layout: Layout
    gpu_type: str
    memory: MemoryParts
    expert_memory: MemoryParts | None
    memory_cap_bytes: int
    decode: StageTime
    prefill: StageTime

    @property
    def tp(self) -> int:
        """Tensor-parallel degree of the stage."""
        return self.stage.shape.tp

    @property
    def width(self) -> int:
        """G: GPUs of the stage by its shape."""
        return self.layout.all_gpus

    def held_bytes(self) -> list[tuple[int, int]]:
        """(GPUs, bytes on each) of both sorts of GPU."""
        held = [(self.layout.gpus, self.memory.total())]
        if self.expert_memory is not None:
            held.append((self.layout.expert_gpus, self.expert_memory.total()))
        return held

    def decode_time_ns(self) -> int:
        """τ_s: the claim where it holds, else the own value."""
        claim = self.stage.decode_time_ns
        return claim if self.decode.accepts(claim) else self.decode.total_ns

    def prefill_time_ns(self) -> int:
        """σ_s: the claim where it holds, else the own value."""
        claim = self.stage.prefill_time_ns
        return claim if self.prefill.accepts(claim) else self.prefill.total_ns


@dataclass(frozen=True)
class ReplicaFigures:
    """One replica. ``law`` follows from true stage times, ``stated`` from claimed ones.

    The two are equal when every claimed stage time holds. ``has_percentiles``: targets
    on percentiles, for which it may serve less than the law lets it.
    """

    label: str
    replica: Replica
    point: Point
    stages: tuple[StageFigures, ...]
    hops: Hops
    law: Law
    stated: Law
    has_percentiles: bool

    @property
    def role(self) -> PoolRole:
        """The role of the replica's pool."""
        return self.point.role

    @property
    def load(self) -> ReplicaLoad | None:
        """The claimed share of the requests."""
        return self.replica.load

    @property
    def rate_mtok_per_s(self) -> int:
        """What the replica serves: the law's rate, or less where it may claim less."""
        claim, most = self.replica.latency.rate_mtok_per_s, self.law.rate_mtok_per_s
        return min(claim, most) if self.has_percentiles else most

    def gpus(self) -> int:
        """G: GPUs of the replica."""
        return sum(stage.width for stage in self.stages)

    def communication_ns(self) -> int:
        """Collectives of one iteration, hops, and the return."""
        inside = sum(stage.decode.communication_ns for stage in self.stages)
        return inside + self.hops.decode_total_ns()

    def communication_share(self) -> Fraction:
        """Communication over S."""
        return _ratio(self.communication_ns(), self.law.pass_ns)

    def memory_imbalance(self) -> Fraction:
        """(max − mean)/mean of the bytes of the replica's GPUs."""
        return _excess([sort for s in self.stages for sort in s.held_bytes()])

    def compute_imbalance(self) -> Fraction:
        """(max − mean)/mean of the stage times of the replica's GPUs."""
        return _excess([(s.width, s.decode_time_ns()) for s in self.stages])

    def bubble(self) -> Fraction:
        """Share of GPU time that is idle at the operating point."""
        busy = sum(s.width * s.decode_time_ns() for s in self.stages)
        whole = self.gpus() * self.law.tpot_ns
        return 1 - _ratio(self.point.micro_batches * busy, whole)

    def flush_bubble(self) -> Fraction:
        """(p − 1)/(q + p − 1), for reports that quote it."""
        others = len(self.stages) - 1
        return Fraction(others, self.point.micro_batches + others)


@dataclass(frozen=True)
class Figures:
    """The plan as a whole."""

    mix: Mix
    replicas: tuple[ReplicaFigures, ...]
    gpus_used: int
    gpus_available: int
    cost_micro_usd_per_hour: int
    unpriced_types: tuple[str, ...]

    def of_role(self, role: PoolRole) -> tuple[ReplicaFigures, ...]:
        """The replicas of the pools of a role."""
        return tuple(replica for replica in self.replicas if replica.role == role)

    def rate_mtok_per_s(self) -> int:
        """Output tokens per second of all replicas, in thousandths.

        Σ mixed + min(Σ prefill, Σ decode).
        """
        mixed, prefill, decode = (
            sum(replica.rate_mtok_per_s for replica in self.of_role(role))
            for role in ("mixed", "prefill", "decode")
        )
        return mixed + min(prefill, decode)

    def requests_per_s(self) -> Fraction:
        """Requests per second of all replicas."""
        return self.rate_mtok_per_s() / (1000 * self.mix.mean_output)

    def tpot_ns(self) -> int:
        """The largest TPOT of a replica that makes output tokens."""
        making = (r for r in self.replicas if r.role != "prefill")
        return max((replica.law.tpot_ns for replica in making), default=0)

    def ttft_ns(self) -> int:
        """The largest TTFT of a replica."""
        return max(replica.law.ttft_ns for replica in self.replicas)


def figures_of(instance: Instance, plan: Plan, inventory: Inventory) -> Figures:
    """Recompute everything that the cost model says of the plan."""
    mix = mix_of(instance.workload)
    builder = _Builder(instance, mix, inventory, balances_of(instance, plan))
    served = [(pool.role, replica) for pool in plan.pools for replica in pool.replicas]
    replicas = tuple(
        builder.replica(f"replica {r}", role, replica)
        for r, (role, replica) in enumerate(served)
    )
    stages = [stage for replica in replicas for stage in replica.stages]
    prices = {stage.gpu_type: _price(instance, stage.gpu_type) for stage in stages}
    return Figures(
        mix=mix,
        replicas=replicas,
        gpus_used=sum(len(stage.stage.gpus) for stage in stages),
        gpus_available=inventory.available_gpus(),
        cost_micro_usd_per_hour=sum(
            len(stage.stage.gpus) * (prices[stage.gpu_type] or 0) for stage in stages
        ),
        unpriced_types=tuple(name for name, price in prices.items() if price is None),
    )


def _price(instance: Instance, gpu_type: str) -> int | None:
    """Micro-USD per hour of one GPU, rounded up."""
    price = instance.cluster.gpu_types[gpu_type].price_usd_per_hour
    return None if price is None else math.ceil(exact(price) * 10**6)


_StageKey = tuple[Point, str, Layout, tuple[int, int], int, int]
_StageValue = tuple[MemoryParts, MemoryParts | None, StageTime, StageTime]


class _Builder:
    """Computes replicas; equal ones of a fleet, and equal stages, are computed once."""

    def __init__(
        self,
        instance: Instance,
        mix: Mix,
        inventory: Inventory,
        balances: Mapping[MapKey, Fraction],
    ) -> None:
        self._instance = instance
        self._mix = mix
        self._inventory = inventory
        self._balances = balances
        self._transfer = transfer_of(instance, mix, inventory)
        self._known: dict[_StageKey, _StageValue] = {}
        self._replicas: dict[Hashable, ReplicaFigures] = {}
        kinds = instance.model.layer_kinds
        self._layers = tuple(kinds[i] for i in instance.model.kind_indices())

    def replica(self, label: str, role: PoolRole, replica: Replica) -> ReplicaFigures:
        """A replica; the figures of equal ones differ in their labels only."""
        places = [self._inventory.islands(stage.gpus) for stage in replica.stages]
        key = self._likeness(role, replica, places)
        if key not in self._replicas:
            self._replicas[key] = self._replica(role, replica)
        known = self._replicas[key]
        stages = tuple(
            replace(figures, label=f"{label} stage {s}", stage=stage)
            for s, (figures, stage) in enumerate(
                zip(known.stages, replica.stages, strict=True)
            )
        )
        return replace(known, label=label, replica=replica, stages=stages)

    def _likeness(
        self, role: PoolRole, replica: Replica, places: list[list[Island]]
    ) -> Hashable:
        """All that the figures follow from: claims, types, and what lies together."""
        own: dict[Island, int] = {}
        stages = tuple(
            (
                stage.model_copy(update={"gpus": ()}),
                len(stage.gpus),
                self._type(stage),
                tuple(own.setdefault(island, len(own)) for island in islands),
            )
            for stage, islands in zip(replica.stages, places, strict=True)
        )
        return role, replica.operating_point, replica.latency, replica.load, stages

    def _replica(self, role: PoolRole, replica: Replica) -> ReplicaFigures:
        point = point_of(replica.operating_point, role, self._mix)
        views = self._views(replica, point)
        stages = tuple(
            self._stage(stage, view)
            for stage, view in zip(replica.stages, views, strict=True)
        )
        hops = self._hops(replica, views, point)
        gpus = sum(stage.layout.gpus for stage in stages)
        service = Service(point, self._mix, hops, gpus, self._transfer)
        law = replica_law(
            service,
            [stage.decode_time_ns() for stage in stages],
            [stage.prefill_time_ns() for stage in stages],
        )
        stated = replica_law(
            service,
            [stage.decode_time_ns for stage in replica.stages],
            [stage.prefill_time_ns for stage in replica.stages],
        )
        if law == stated:
            law = settled(law, service, replica.latency)
        stated = settled(stated, service, replica.latency)
        several = bool(percentile_targets(self._instance, role))
        return ReplicaFigures("", replica, point, stages, hops, law, stated, several)

    def _views(self, replica: Replica, point: Point) -> tuple[StageView, ...]:
        return tuple(
            StageView(
                instance=self._instance,
                mix=self._mix,
                point=point,
                spec=self._instance.cluster.gpu_types[self._type(stage)],
                layout=self._layout(stage),
                kinds=self._kinds(stage.layers),
                index=index,
                stages=len(replica.stages),
            )
            for index, stage in enumerate(replica.stages)
        )

    def _layout(self, stage: Stage) -> Layout:
        islands = len(self._inventory.islands(stage.gpus))
        layout = layout_of(stage, self._instance.model, max(1, islands))
        if not balanced(self._instance, layout.ep):
            return layout
        balance = self._balances.get((layout.ep, layout.slots))
        return replace(layout, balance=balance)

    def _type(self, stage: Stage) -> str:
        return self._inventory.timed_type(stage.gpu_type, stage.gpus)

    def _kinds(self, layers: tuple[int, int]) -> tuple[LayerKind, ...]:
        return self._layers[layers[0] : layers[1]]

    def _stage(self, stage: Stage, view: StageView) -> StageFigures:
        gpu_type = self._type(stage)
        place = (stage.layers, view.index, view.stages)
        key = (view.point, gpu_type, view.layout, *place)
        if key not in self._known:
            self._known[key] = (
                memory_of(view),
                expert_memory_of(view) if view.layout.apart else None,
                stage_time(view, balanced_iterations(view)),
                stage_time(view, chunk_iterations(view)),
            )
        memory, experts, decode, prefill = self._known[key]
        if self._instance.engine.latencies == "silicon":
            decode = as_measured(stage.decode_time_ns)
            if view.point.role != "decode":
                prefill = as_measured(stage.prefill_time_ns)
        cap = memory_cap_bytes(self._instance, view.spec)
        figures = (memory, experts, cap, decode, prefill)
        return StageFigures("", stage, view.layout, gpu_type, *figures)

    def _hops(
        self, replica: Replica, views: tuple[StageView, ...], point: Point
    ) -> Hops:
        m = point.micro_batch_sequences
        back = return_ns(self._instance) if len(views) > 1 else 0
        decode = self._hop_row(replica, views, m + point.prompt_tokens)
        prefill = self._hop_row(replica, views, m + point.prefill_tokens)
        return Hops(decode, () if point.role == "decode" else prefill, back)

    def _hop_row(
        self, replica: Replica, views: tuple[StageView, ...], tokens: int
    ) -> tuple[int, ...]:
        return tuple(
            hop_ns(views[i], views[i + 1], tokens, self._together(here, there))
            for i, (here, there) in enumerate(pairwise(replica.stages))
        )

    def _together(self, here: Stage, there: Stage) -> bool:
        """True when both stages lie on one island (unknown GPUs do not count)."""
        return len(self._inventory.islands(here.gpus, there.gpus)) <= 1


def gpu_name(gpu: GpuRank) -> str:
    """NODE/INDEX."""
    return f"{gpu.node}/{gpu.gpu}"


def _ratio(part: int, whole: int) -> Fraction:
    return Fraction(part, whole) if whole else Fraction(0)


def _excess(weighted: list[tuple[int, int]]) -> Fraction:
    """max·ΣG/Σ(G·value) − 1, which is (max − mean)/mean over the GPUs."""
    total = sum(count * value for count, value in weighted)
    gpus = sum(count for count, _ in weighted)
    largest = max(value for _, value in weighted)
    return _ratio(largest * gpus, total) - (1 if total else 0)
