"""The plan: pools, replicas, stages, layer ranges, and the GPU of every rank."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shardwright.schema.base import (
    SCHEMA_VERSION,
    Count,
    Document,
    Index,
    Name,
    NonNegative,
    Positive,
)
from shardwright.schema.workload import LatencyMetric

PoolRole = Literal["mixed", "prefill", "decode"]
"""What the replicas of a pool do: all of a request, its prompt, or its output."""

Nanoseconds = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class OperatingPoint(Document):
    """What a replica is run at.

    ``micro_batch_sequences`` is ceil(sequences / micro_batches);
    ``prompt_tokens`` is the prompt work of one micro-batch in balance;
    ``chunk_count`` the prefill iterations of one mean prompt. A prefill replica has
    micro-batches of prompts alone, a decode replica takes no prompt tokens.
    """

    sequences: Count
    micro_batches: Count
    micro_batch_sequences: Index
    prefill_chunk_tokens: Index
    prompt_tokens: Index
    chunk_count: Count

    @property
    def role(self) -> PoolRole:
        """The role of a replica that is run at this point."""
        if not self.micro_batch_sequences:
            return "prefill"
        return "mixed" if self.prefill_chunk_tokens else "decode"


class Shape(Document):
    """Parallel shape of one stage: tp*attn_dp*cp = moe_tp*ep*moe_dp = its GPUs."""

    tp: Count
    attn_dp: Count = 1
    cp: Count = 1
    moe_tp: Count
    ep: Count = 1
    moe_dp: Count = 1


class GpuRank(Document):
    """One GPU of a stage and its rank within the replica."""

    node: Name
    gpu: Index
    rank: Index


class MemoryParts(Document):
    """Bytes on each GPU of a stage, by part."""

    weights: Bytes
    kv_cache: Bytes
    activations: Bytes
    communication: Bytes
    framework: Bytes

    def total(self) -> int:
        """Sum of the parts, in bytes."""
        return (
            self.weights
            + self.kv_cache
            + self.activations
            + self.communication
            + self.framework
        )


class ExpertUnit(Document):
    """The GPUs of a disaggregated stage that hold its routed experts and nothing else.

    They are the last ``gpus`` of the stage: moe_tp*ep of its shape, tp*attn_dp are the
    others. ``ping_pong`` is the number of parts that a micro-batch is worked off in;
    ``memory_bytes`` is on each expert GPU.
    """

    gpus: Count
    ping_pong: Count
    memory_bytes: MemoryParts


class Stage(Document):
    """One pipeline stage; ``layers`` is half-open.

    ``expert_slots`` is how many experts of a layer each GPU holds (0: dense model).
    With ``expert_unit`` the stage is disaggregated: its first GPUs are attention ranks,
    which ``memory_bytes`` is of, its last ones hold the experts.
    ``decode_time_ns`` is the time of one balanced iteration, ``prefill_time_ns`` of
    one that carries a full prefill chunk.
    """

    layers: tuple[Index, Count]
    shape: Shape
    expert_slots: Index = 0
    gpu_type: Name
    gpus: Annotated[tuple[GpuRank, ...], Field(min_length=1)]
    memory_bytes: MemoryParts
    decode_time_ns: Nanoseconds
    prefill_time_ns: Nanoseconds
    expert_unit: ExpertUnit | None = None

    def memory_by_role(self) -> tuple[tuple[str, int, MemoryParts], ...]:
        """(role, GPUs, memory of each): mixed, or attention and expert."""
        apart = self.expert_unit
        if apart is None:
            return (("mixed", len(self.gpus), self.memory_bytes),)
        rest = len(self.gpus) - apart.gpus
        attention = ("attention", rest, self.memory_bytes)
        return (attention, ("expert", apart.gpus, apart.memory_bytes))


class ReplicaLatency(Document):
    """Claims of one replica, all from its stage times by the replica law."""

    tpot_ns: Nanoseconds
    ttft_ns: Nanoseconds
    prefill_ns: Nanoseconds
    rate_mtok_per_s: Annotated[int, Field(ge=0)]


class PercentileClaim(Document):
    """What the queueing model predicts for one target on a percentile."""

    metric: LatencyMetric
    percentile: Annotated[Positive, Field(lt=100)]
    predicted_ms: NonNegative


class ReplicaLoad(Document):
    """A replica under its share of the requests, by the closed forms of docs/tails.md.

    ``knife_edge`` says that the tails hang on rare moments without a free slot: verify
    them by simulation.
    """

    request_rate_per_s: Positive
    utilisation: NonNegative
    mean_batch: NonNegative
    knife_edge: bool
    percentiles: Annotated[tuple[PercentileClaim, ...], Field(min_length=1)]


class Replica(Document):
    """An ordered list of stages that covers all layers once.

    The TPOT of a prefill replica is the period of its iterations: it makes no output
    tokens. A decode replica has no prefill latency and no TTFT. ``load`` is null
    without targets on percentiles.
    """

    operating_point: OperatingPoint
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    latency: ReplicaLatency
    load: ReplicaLoad | None = None

    @property
    def role(self) -> PoolRole:
        """The role of the replica's pool."""
        return self.operating_point.role

    @property
    def served(self) -> tuple[PoolRole, int]:
        """Role and rate, as the law of a fleet takes them."""
        return self.role, self.latency.rate_mtok_per_s


class Pool(Document):
    """Replicas of one role."""

    role: PoolRole = "mixed"
    replicas: Annotated[tuple[Replica, ...], Field(min_length=1)]


class ExpertMap(Document):
    """Experts of every slot, for the stages with this ``ep`` and slots per GPU.

    ``layers[i][j]`` is the expert in slot j of the i-th MoE layer; GPU g of an expert
    group holds the slots [g*slots_per_gpu, (g+1)*slots_per_gpu). ``balance`` is the
    mean over the layers of the busiest GPU's tokens over the mean GPU's.
    """

    ep: Count
    slots_per_gpu: Count
    balance: Annotated[float, Field(ge=1)]
    layers: Annotated[tuple[tuple[Index, ...], ...], Field(min_length=1)]


class Plan(Document):
    """A deployment. ``expert_map`` is null for dense models and unknown loads."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    instance_name: Name
    instance_sha256: str
    pools: Annotated[tuple[Pool, ...], Field(min_length=1)]
    expert_map: tuple[ExpertMap, ...] | None = None

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica of every pool, in order."""
        return tuple(replica for pool in self.pools for replica in pool.replicas)

    def tpot_ns(self) -> int:
        """Largest TPOT of the replicas that make output tokens."""
        making = (r for r in self.replicas() if r.role != "prefill")
        return max((r.latency.tpot_ns for r in making), default=0)

    def ttft_ns(self) -> int:
        """Largest TTFT of the replicas that take prompts in."""
        return max(r.latency.ttft_ns for r in self.replicas())
