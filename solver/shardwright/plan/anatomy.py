"""A plan taken apart: loads, links and times behind the figures it claims.

Everything follows from the two documents, so a plan read from a file has the same
anatomy as one that was just found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shardwright.cost.latencies import Latencies, StageTimes, latencies_of
from shardwright.cost.lengths import ceil_fraction, exact
from shardwright.cost.links import link_speed as sustained_link
from shardwright.cost.links import network_speed as sustained_network
from shardwright.cost.memory import FIRST, LAST, ONLY
from shardwright.cost.rank import RankLayer, value_bytes
from shardwright.cost.shape import StageShape
from shardwright.cost.times import Load as ClockLoad
from shardwright.cost.times import hop_ns
from shardwright.plan.experts import map_of, redundant_slots
from shardwright.plan.parts import MemoryAnatomy
from shardwright.problem import stage_roles
from shardwright.problem.context import kv_shards
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.plan import GpuRank, OperatingPoint, Plan, Replica, Stage


class Load(NamedTuple):
    """What one iteration carries, on average where the prompt tokens come in chunks.

    ``chunk_tokens``: what an iteration carries of them; None: they are one chunk.
    """

    sequences: int
    prompt_tokens: int
    chunk_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the iteration."""
        return self.sequences + self.prompt_tokens

    def on(self, shape: StageShape) -> ClockLoad:
        """As the cost tables take it."""
        m = np.array([self.sequences], float)
        x = np.array([self.prompt_tokens], float)
        if self.chunk_tokens is None:
            return ClockLoad.lone_chunk(m, x, shape.attn_dp)
        chunk = np.array([self.chunk_tokens], float)
        return ClockLoad.balanced(m, x, chunk, shape.attn_dp)


class Loads(NamedTuple):
    """The two iterations that a plan is priced with."""

    decode: Load
    prefill: Load


class Times(NamedTuple):
    """ns in the balanced iteration and in one with a full prefill chunk."""

    decode_ns: int
    prefill_ns: int


@dataclass(frozen=True)
class Hop:
    """From one stage to the next. ``gbyte_per_s`` is what the cost model sustains."""

    sender: int
    receiver: int
    within_island: bool
    gbyte_per_s: float
    bytes_decode: int
    bytes_prefill: int
    times: Times


@dataclass(frozen=True, eq=False)
class Anatomy:
    """An instance and a plan, with the look-ups that tables and metrics share."""

    instance: Instance
    plan: Plan

    @cached_property
    def memory(self) -> MemoryAnatomy:
        """Memory parts and request moments."""
        return MemoryAnatomy(self.instance)

    @cached_property
    def _latencies(self) -> Latencies:
        return latencies_of(self.instance, self.memory.mix)

    @cached_property
    def _clocks(self) -> dict[tuple[str, StageShape], StageTimes]:
        return {}

    @cached_property
    def alike(self) -> tuple[int, ...]:
        """For every replica the first one with the same figures.

        Figures follow from all but the names of nodes and GPUs: which of them lie
        together is kept.
        """
        first: dict[Hashable, int] = {}
        replicas = self.plan.replicas()
        return tuple(
            first.setdefault(self._likeness(replica), index)
            for index, replica in enumerate(replicas)
        )

    @cached_property
    def kinds(self) -> tuple[tuple[Replica, int], ...]:
        """Replicas with different figures, and how many there are of each."""
        replicas = self.plan.replicas()
        return tuple((replicas[i], n) for i, n in Counter(self.alike).items())

    def _likeness(self, replica: Replica) -> Hashable:
        nodes: dict[str, int] = {}
        islands: dict[tuple[str, int], int] = {}
        stages = []
        for s in replica.stages:
            places = tuple(
                (
                    nodes.setdefault(gpu.node, len(nodes)),
                    islands.setdefault(self.island(gpu), len(islands)),
                )
                for gpu in s.gpus
            )
            own = (s.layers, s.shape, s.expert_slots, s.gpu_type, s.expert_unit)
            times = (s.decode_time_ns, s.prefill_time_ns)
            stages.append((places, own, s.memory_bytes, times))
        point, claims = replica.operating_point, (replica.latency, replica.load)
        return point, claims, tuple(stages)

    def gpu(self, stage: Stage) -> GpuSpec:
        """The GPU type of a stage."""
        return self.instance.cluster.gpu_types[stage.gpu_type]

    def usable_bytes(self, stage: Stage) -> int:
        """What the memory fraction leaves of one GPU."""
        if stage.gpu_type not in self._usable:
            share = exact(self.instance.limits.memory_fraction)
            usable = int(share * self.gpu(stage).memory_bytes // 1)
            self._usable[stage.gpu_type] = usable
        return self._usable[stage.gpu_type]

    @cached_property
    def _usable(self) -> dict[str, int]:
        return {}

    @cached_property
    def _collectives(self) -> dict[tuple[object, ...], list[Times]]:
        return {}

    def clock(self, stage: Stage) -> StageTimes:
        """Iteration times of the stage's GPU type and shape."""
        key = (stage.gpu_type, self.shape(stage))
        if key not in self._clocks:
            self._clocks[key] = self._latencies.clock(
                self.gpu(stage), key[1], self.ranks(stage)
            )
        return self._clocks[key]

    def ranks(self, stage: Stage) -> tuple[RankLayer, ...]:
        """One GPU's share of every layer kind, with the balance of the plan's map."""
        ranks, found = self.memory.ranks(self.shape(stage)), map_of(self.plan, stage)
        if found is None:
            return ranks
        experts = [
            r.experts and replace(r.experts, balance=found.balance) for r in ranks
        ]
        pairs = zip(ranks, experts, strict=True)
        return tuple(replace(r, experts=e) for r, e in pairs)

    def shape(self, stage: Stage) -> StageShape:
        """The stage's shape as the cost room takes it."""
        islands = {self.island(gpu) for gpu in stage.gpus}
        s = stage.shape
        redundant = redundant_slots(self.instance, stage) if stage.expert_slots else 0
        apart = stage.expert_unit
        return StageShape(
            s.tp,
            s.attn_dp,
            s.moe_tp,
            s.ep,
            s.moe_dp,
            redundant,
            len(islands),
            0 if apart is None else apart.gpus,
            1 if apart is None else apart.ping_pong,
            s.cp,
            kv_shards(self.instance, s.cp),
        )

    def island(self, gpu: GpuRank) -> tuple[str, int]:
        """Node and island of a GPU."""
        return gpu.node, self._homes[gpu.node].get(gpu.gpu, -1)

    @cached_property
    def _homes(self) -> dict[str, dict[int, int]]:
        """Island of every GPU of every node; nodes of a group share theirs."""
        cluster, found = self.instance.cluster, {}
        for group in cluster.nodes:
            islands = enumerate(cluster.islands(group))
            homes = {gpu: i for i, island in islands for gpu in island}
            found.update(dict.fromkeys(group.node_names(), homes))
        return found

    def loads(self, point: OperatingPoint) -> Loads:
        """What the balanced and the prefill iteration carry."""
        m = point.micro_batch_sequences
        mix, chunk = self.memory.mix, 0
        if point.prefill_chunk_tokens:
            chunk = mix.chunk_work(point.prefill_chunk_tokens)
        carried = mix.carried_prompt
        if point.role == "prefill":
            carried = 1  # spread over the attention ranks
        return Loads(Load(m, point.prompt_tokens, carried), Load(m, chunk))

    def layer_communication(self, stage: Stage, load: Load) -> int:
        """ns in the all-reduces of the stage's layers, each layer rounded up."""
        shape = self.shape(stage)
        clock, ranks = self.clock(stage), self.ranks(stage)
        counts = self.memory.kind_counts(*stage.layers)
        return sum(
            count * int(clock.layer(ranks[kind], load.on(shape))[1][0])
            for kind, count in counts.items()
        )

    def constant_communication(self, stage: Stage, role: int, load: Load) -> int:
        """ns in the collectives of embedding and logits."""
        on = load.on(self.shape(stage))
        return int(self.clock(stage).stage_constant(role, on)[1][0])

    def communication(self, replica: Replica) -> list[Times]:
        """Collective time of every stage; equal replicas are computed once."""
        point = replica.operating_point
        key = (
            (point.role, point.sequences, point.micro_batches),
            point.prefill_chunk_tokens,
            tuple((s.gpu_type, s.layers, self.shape(s)) for s in replica.stages),
        )
        if key not in self._collectives:
            self._collectives[key] = self._communication(replica)
        return self._collectives[key]

    def _communication(self, replica: Replica) -> list[Times]:
        loads = self.loads(replica.operating_point)
        roles = stage_roles(len(replica.stages))
        return [
            Times(
                *(
                    self.layer_communication(stage, load)
                    + self.constant_communication(stage, role, load)
                    for load in loads
                )
            )
            for stage, role in zip(replica.stages, roles, strict=True)
        ]

    def hops(self, replica: Replica) -> list[Hop]:
        """Every hop of a replica, in order."""
        loads = self.loads(replica.operating_point)
        pairs = zip(replica.stages[:-1], replica.stages[1:], strict=True)
        return [self._hop(i, a, b, loads) for i, (a, b) in enumerate(pairs)]

    def _hop(self, index: int, sender: Stage, receiver: Stage, loads: Loads) -> Hop:
        within = self.island(sender.gpus[-1]) == self.island(receiver.gpus[0])
        ends = (self.gpu(sender), self.gpu(receiver))
        model, precision = self.instance.model, self.instance.precision
        time = hop_ns(model, precision, *ends, within)
        each = 2 * model.hidden * self.activation_value_bytes
        return Hop(
            sender=index,
            receiver=index + 1,
            within_island=within,
            gbyte_per_s=link_speed(ends[0]) if within else network_speed(ends),
            bytes_decode=each * loads.decode.tokens,
            bytes_prefill=each * loads.prefill.tokens,
            times=Times(*(int(time(np.array([x.tokens], float))[0]) for x in loads)),
        )

    @cached_property
    def activation_value_bytes(self) -> int:
        """Bytes of one activation."""
        return value_bytes(self.instance.precision.activations)[0]

    def return_ns(self, replica: Replica) -> int:
        """The tokens' way back to the first stage."""
        if len(replica.stages) == 1:
            return 0
        types = self.instance.cluster.gpu_types
        used = {group.gpu for group in self.instance.cluster.nodes}
        latencies = (exact(types[n].calibration.network_latency_us) for n in used)
        return ceil_fraction(max(latencies) * 1000)

    def loop_ns(self, replica: Replica) -> int:
        """S: one pass of a micro-batch through all stages and back."""
        hops = sum(hop.times.decode_ns for hop in self.hops(replica))
        stages = sum(stage.decode_time_ns for stage in replica.stages)
        return stages + hops + self.return_ns(replica)

    def communication_ns(self, replica: Replica) -> int:
        """Collectives, hops and return in one pass."""
        collectives = sum(times.decode_ns for times in self.communication(replica))
        hops = sum(hop.times.decode_ns for hop in self.hops(replica))
        return collectives + hops + self.return_ns(replica)

    def e2e_ns(self, ttft_ns: int, tpot_ns: int) -> int:
        """Arrival to last token of a mean request."""
        return ttft_ns + ceil_fraction((self.memory.mix.output_mean - 1) * tpot_ns)

    def requests_per_s(self, replica: Replica) -> float:
        """Requests per second with prefill counted."""
        rate = Fraction(replica.latency.rate_mtok_per_s, 1000)
        return float(rate / self.memory.mix.output_mean)


def gpu_count(stages: Sequence[Stage]) -> int:
    """GPUs of some stages."""
    return sum(len(stage.gpus) for stage in stages)


def link_speed(gpu: GpuSpec) -> float:
    """Sustained GB/s per direction inside an island."""
    return sustained_link(gpu) / 1e9


def network_speed(ends: Sequence[GpuSpec]) -> float:
    """Sustained GB/s per direction between islands."""
    return min(sustained_network(g) for g in ends) / 1e9


def has_embedding(role: int) -> bool:
    """Whether a stage of this role holds the embedding."""
    return role in (FIRST, ONLY)


def has_lm_head(role: int) -> bool:
    """Whether a stage of this role holds the LM head."""
    return role in (LAST, ONLY)
