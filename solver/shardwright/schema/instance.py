"""The instance: what people write (InstanceFile) and what is solved (Instance)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from shardwright.schema.base import (
    SCHEMA_VERSION,
    Count,
    Document,
    Name,
    NonNegative,
    Positive,
    Size,
    without_new,
)
from shardwright.schema.cluster import Cluster, GpuSpec, NodeGroup
from shardwright.schema.model import ModelSpec
from shardwright.schema.topology import Fabric
from shardwright.schema.workload import (
    Engine,
    Goal,
    Grid,
    Limits,
    Precision,
    SloTarget,
    Workload,
)

Pools = Literal["mixed", "disaggregated", "any"]


class Fix(Document):
    """Decisions fixed beforehand; they hold for every replica.

    ``dp`` fixes the number of replicas, ``layers`` the layers of each stage. ``afd``
    asks for disaggregated stages of so many attention and expert GPUs, ``ping_pong``
    for the parts of their micro-batches.
    """

    tp: Count | None = None
    attn_dp: Count | None = None
    moe_tp: Count | None = None
    ep: Count | None = None
    cp: Count | None = None
    moe_dp: Count | None = None
    pp: Count | None = None
    dp: Count | None = None
    layers: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    sequences: Count | None = None
    prefill_chunk_tokens: Count | None = None
    micro_batches: Count | None = None
    afd: tuple[Count, Count] | None = None
    ping_pong: Annotated[int, Field(ge=2, le=10**6)] | None = None

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_new(handler(self), ("cp", "moe_dp"))


class _Asked(Document):
    """What every form of the instance states in the same words.

    ``pools`` says whether replicas do prefill and decode together, in pools of their
    own, or whichever is better.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    name: Name
    description: str = ""
    workload: Workload
    slo: tuple[SloTarget, ...] = ()
    limits: Limits = Limits()
    precision: Precision = Precision()
    engine: Engine = Engine()
    objective: Annotated[tuple[Goal, ...], Field(min_length=1)] | None = None
    grid: Grid = Grid()
    fix: Fix = Fix()
    pools: Pools = "mixed"

    def goals(self) -> tuple[Goal, ...]:
        """The objective, or its default (DESIGN: with and without a request rate)."""
        if self.objective is not None:
            return self.objective
        if self.workload.request_rate_per_s is not None:
            return ("gpus", "throughput", "tpot")
        return ("throughput", "gpus")


class Instance(_Asked):
    """A complete instance: every catalogue entry it names stands in it."""

    model: ModelSpec
    cluster: Cluster


class GpuReference(Document):
    """A GPU type of the catalogue, with the figures that this cluster overrides."""

    catalogue: Name
    memory_bytes: Annotated[Size, Field(gt=0)] | None = Field(
        alias="memory", default=None
    )
    hbm_gbyte_per_s: Positive | None = None
    dense_tflops: dict[str, Positive] | None = None
    link_technology: Name | None = None
    link_gbyte_per_s: Positive | None = None
    island_gpus: Count | None = None
    network_gbyte_per_s: Positive | None = None
    price_usd_per_hour: NonNegative | None = None
    calibration: Name | None = None


class ClusterFile(Document):
    """A cluster whose GPU types may be references into the catalogue."""

    gpu_types: Annotated[
        dict[str, GpuSpec | GpuReference], Field(min_length=1, max_length=64)
    ]
    nodes: Annotated[tuple[NodeGroup, ...], Field(min_length=1, max_length=10_000)]
    fabric: Fabric | None = None


class InstanceFile(_Asked):
    """An instance as people write it.

    ``model`` is a catalogue name, the path of a Hugging Face config.json beside the
    file, or a full model specification. ``cluster`` may be the path of a file with a
    cluster in it, from this file's folder.
    """

    model: str | ModelSpec
    cluster: str | ClusterFile
