"""The cluster: nodes of GPU types, their islands, and what is not available."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardwright.schema.base import (
    Count,
    Document,
    Index,
    Name,
    NonNegative,
    Number,
    Positive,
    Share,
    Size,
)

Confidence = Literal["high", "medium", "low"]


class Calibration(Document):
    """Constants of the cost model for one GPU type (docs/cost-model.md, table C).

    ``allreduce_latency_us`` maps the number of ranks to the start-up time of one
    all-reduce inside an island; other sizes take the next larger entry.
    """

    name: Name
    hbm_efficiency: Share
    kv_read_efficiency: Share
    matmul_efficiency: dict[str, Share]
    attention_efficiency: Share
    link_efficiency: Share
    network_efficiency: Share
    allreduce_latency_us: dict[int, NonNegative]
    hop_latency_us: NonNegative
    network_latency_us: NonNegative
    layer_overhead_us: NonNegative
    step_overhead_us: NonNegative
    sequence_overhead_us: NonNegative
    framework_memory_bytes: Size = Field(alias="framework_memory")
    communicator_memory_bytes: Size = Field(alias="communicator_memory")
    source: str
    confidence: Confidence

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        if not self.allreduce_latency_us:
            raise ValueError("allreduce_latency_us needs at least one entry")
        if min(self.allreduce_latency_us) < 2:
            raise ValueError("allreduce_latency_us is keyed by rank counts from 2")
        return self


class GpuSpec(Document):
    """One GPU type. Bandwidths are per direction; GB/s are 1e9 bytes per second."""

    name: Name
    vendor: str = ""
    memory_bytes: Annotated[Size, Field(gt=0)] = Field(alias="memory")
    hbm_gbyte_per_s: Positive
    dense_tflops: dict[str, Positive]
    link_technology: str
    link_gbyte_per_s: Positive
    island_gpus: Count
    network_gbyte_per_s: Positive
    price_usd_per_hour: NonNegative | None = None
    calibration: Calibration
    source: str = ""
    price_source: str = ""
    confidence: Confidence = "medium"


class NodeGroup(Document):
    """``count`` equal nodes named NAME-0, NAME-1, ... (just NAME when count is 1).

    GPU indices run from 0; island i of a node holds the GPUs
    [i*island_gpus, (i+1)*island_gpus). ``reserved`` and ``failed`` GPUs of every
    node of the group are never used.
    """

    name: Name
    gpu: Name
    gpus: Annotated[int, Field(ge=1, le=1024)]
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    island_gpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    reserved: tuple[Index, ...] = ()
    failed: tuple[Index, ...] = ()

    @model_validator(mode="after")
    def _indices(self) -> NodeGroup:
        for field in ("reserved", "failed"):
            beyond = [g for g in getattr(self, field) if g >= self.gpus]
            if beyond:
                raise ValueError(
                    f"{field} names GPUs {beyond}; this node has 0 to {self.gpus - 1}"
                )
        return self

    def node_names(self) -> list[str]:
        """Names of the nodes of the group, in order."""
        if self.count == 1:
            return [self.name]
        return [f"{self.name}-{i}" for i in range(self.count)]


class Cluster(Document):
    """GPU types by their name in this file, and the groups of nodes."""

    gpu_types: Annotated[dict[str, GpuSpec], Field(min_length=1, max_length=64)]
    nodes: Annotated[tuple[NodeGroup, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _consistent(self) -> Cluster:
        for i, group in enumerate(self.nodes):
            if group.gpu not in self.gpu_types:
                raise ValueError(
                    f"nodes.{i}.gpu is {group.gpu!r}; "
                    f"gpu_types has {sorted(self.gpu_types)}"
                )
        names = [name for group in self.nodes for name in (group.name,)]
        if len(set(names)) != len(names):
            raise ValueError(f"nodes have repeated names: {names}")
        total = sum(group.count * group.gpus for group in self.nodes)
        if total > MAX_GPUS:
            raise ValueError(f"{total} GPUs; at most {MAX_GPUS} are allowed")
        return self

    def island_size(self, group: NodeGroup) -> int:
        """GPUs per island in the nodes of ``group``."""
        size = group.island_gpus or self.gpu_types[group.gpu].island_gpus
        return min(size, group.gpus)


MAX_GPUS = 200_000

__all__ = [
    "MAX_GPUS",
    "Calibration",
    "Cluster",
    "Confidence",
    "GpuSpec",
    "NodeGroup",
    "Number",
]
