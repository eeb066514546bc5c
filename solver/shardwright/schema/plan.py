"""The plan: pools, replicas, stages, layer ranges, and the GPU of every rank."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shardwright.schema.base import SCHEMA_VERSION, Count, Document, Index, Name

Nanoseconds = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class OperatingPoint(Document):
    """What a replica is run at.

    ``micro_batch_sequences`` is ceil(sequences / micro_batches);
    ``prompt_tokens`` is the prompt work of one micro-batch in balance;
    ``chunk_count`` the prefill iterations of one mean prompt.
    """

    sequences: Count
    micro_batches: Count
    micro_batch_sequences: Count
    prefill_chunk_tokens: Count
    prompt_tokens: Index
    chunk_count: Count


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


class Stage(Document):
    """One pipeline stage; ``layers`` is half-open.

    ``expert_slots`` is how many experts of a layer each GPU holds (0: dense model).
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


class ReplicaLatency(Document):
    """Claims of one replica, all from its stage times by the replica law."""

    tpot_ns: Nanoseconds
    ttft_ns: Nanoseconds
    prefill_ns: Nanoseconds
    rate_mtok_per_s: Annotated[int, Field(ge=0)]


class Replica(Document):
    """An ordered list of stages that covers all layers once."""

    operating_point: OperatingPoint
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    latency: ReplicaLatency


class Pool(Document):
    """Replicas of one role."""

    role: Literal["mixed", "prefill", "decode"] = "mixed"
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
