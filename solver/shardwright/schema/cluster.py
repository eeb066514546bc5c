"""The cluster: nodes of GPU types, their islands, and what is not available."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

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
from shardwright.schema.errors import FieldError
from shardwright.schema.topology import (
    Fabric,
    Faults,
    NodeTopology,
    fabric_faults,
    island_faults,
    per_node_faults,
    topology_faults,
)

Confidence = Literal["high", "medium", "low"]


class EngineCosts(Document):
    """What an engine adds to the work of the GPU (docs/cost-model.md section 4).

    ``expert_overhead_us`` is added in layers with experts. ``compute_factor``
    scales the FLOP/s that its kernels sustain.
    ``request_overhead_ms`` is paid once by a request before its first token
    (tokenisation, admission, streaming); ``admission_steps`` is how many iterations it
    waits on average until the scheduler looks for new requests; ``cold_start_s`` is
    what the first requests of a run wait for kernels that are compiled on first use.
    """

    layer_overhead_us: NonNegative
    expert_overhead_us: NonNegative = 0.0
    step_overhead_us: NonNegative
    sequence_overhead_us: NonNegative
    request_overhead_ms: NonNegative = 0.0
    admission_steps: NonNegative = 0.5
    cold_start_s: NonNegative = 0.0
    compute_factor: Annotated[Number, Field(gt=0, le=4)] = 1.0


class Calibration(Document):
    """Constants of the cost model for one GPU type (docs/cost-model.md, section 4).

    ``allreduce_latency_us`` maps the number of ranks to the start-up time of one
    all-reduce inside an island; other sizes take the next larger entry. What the
    fields with a default stand for does nothing at that default. ``engines`` are the
    costs by engine; without an entry the three overheads here hold.
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
    roofline_exponent: Annotated[Number, Field(ge=0, le=100)] = 0.0
    hidden_accesses: NonNegative = 0.0
    attention_ramp_tokens: NonNegative = 0.0
    unpacking_factor: Annotated[Number, Field(ge=1, le=4)] = 1.0
    expert_tile_rows: NonNegative = 0.0
    overhead_factor: Annotated[Number, Field(gt=0, le=10)] = 1.0
    engines: dict[str, EngineCosts] = Field(default_factory=dict)
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
        if 0 < self.roofline_exponent < 1:
            raise ValueError("roofline_exponent is 0 (the larger) or at least 1")
        return self

    def engine(self, name: str) -> EngineCosts:
        """Costs of an engine; one that is not listed takes vLLM's."""
        listed = self.engines.get(name) or self.engines.get("vllm")
        return listed or EngineCosts(
            layer_overhead_us=self.layer_overhead_us,
            step_overhead_us=self.step_overhead_us,
            sequence_overhead_us=self.sequence_overhead_us,
        )


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
    """``count`` equal nodes named NAME-0, NAME-1, ... (just NAME when count is 1),
    or as ``hosts`` says.

    GPU indices run from 0; island i of a node holds the GPUs
    [i*island_gpus, (i+1)*island_gpus), or those of ``islands[i]`` where islands are
    listed: each a set of GPUs with all-to-all fast links, every GPU in one of them.
    ``reserved`` and ``failed`` GPUs of every node of the group are never used.
    ``gpu_uuids`` and ``pci_bus_ids`` have one entry per GPU, by node name.
    """

    name: Name
    gpu: Name
    gpus: Annotated[int, Field(ge=1, le=1024)]
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    hosts: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    island_gpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    islands: (
        Annotated[
            tuple[Annotated[tuple[Index, ...], Field(min_length=1)], ...],
            Field(min_length=1),
        ]
        | None
    ) = None
    topology: NodeTopology | None = None
    gpu_uuids: dict[Name, tuple[Name, ...]] | None = None
    pci_bus_ids: dict[Name, tuple[Name, ...]] | None = None
    reserved: tuple[Index, ...] = ()
    failed: tuple[Index, ...] = ()

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what an older file cannot say leaves no trace, so its hash stays
        return _without_null(handler(self), _OPTIONAL_OF_NODES)

    @model_validator(mode="after")
    def _topology(self) -> NodeGroup:
        faults = [*self._host_faults()]
        if self.islands is not None:
            faults += island_faults(self.islands, self.gpus)
        if self.topology is not None:
            faults += topology_faults(self.topology, self.gpus)
        for field in ("gpu_uuids", "pci_bus_ids"):
            if not faults and (listed := getattr(self, field)) is not None:
                nodes = self.node_names()
                faults += per_node_faults(field, listed, nodes, self.gpus)
        if faults:
            raise Faults(faults)
        return self

    def _host_faults(self) -> Iterator[FieldError]:
        hosts = self.hosts
        if hosts is not None and len(hosts) != self.count:
            found = f"{len(hosts)} names"
            yield FieldError("hosts", found, f"one per node (count {self.count})")
        seen: set[str] = set()
        for k, host in enumerate(hosts or ()):
            if host in seen:
                yield FieldError(f"hosts.{k}", repr(host), "names differ")
            seen.add(host)

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
        if self.hosts is not None:
            return [*self.hosts]
        if self.count == 1:
            return [self.name]
        return [f"{self.name}-{i}" for i in range(self.count)]


class Cluster(Document):
    """GPU types by their name in this file, and the groups of nodes."""

    gpu_types: Annotated[dict[str, GpuSpec], Field(min_length=1, max_length=64)]
    nodes: Annotated[tuple[NodeGroup, ...], Field(min_length=1, max_length=10_000)]
    fabric: Fabric | None = None

    @model_serializer(mode="wrap")
    def _given_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_null(handler(self), ("fabric",))

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
        groups = {group.name: group.node_names() for group in self.nodes}
        faults = [*_name_faults(self.nodes)]
        if self.fabric is not None and not faults:
            faults += fabric_faults(self.fabric, groups)
        if faults:
            raise Faults(faults)
        return self

    def islands(self, group: NodeGroup) -> tuple[tuple[int, ...], ...]:
        """GPUs of every island in a node of ``group``; reserved and failed too."""
        if group.islands is not None:
            return group.islands
        size = self.island_size(group)
        starts = range(0, group.gpus, size)
        return tuple(tuple(range(s, min(s + size, group.gpus))) for s in starts)

    def island_size(self, group: NodeGroup) -> int:
        """GPUs of an island in the nodes of ``group``, of the largest where listed."""
        if group.islands is not None:
            return max(len(island) for island in group.islands)
        size = group.island_gpus or self.gpu_types[group.gpu].island_gpus
        return min(size, group.gpus)


def _name_faults(groups: Sequence[NodeGroup]) -> Iterator[FieldError]:
    """Hosts have names of their own; other names are told apart where they are read."""
    if all(group.hosts is None for group in groups):
        return
    first: dict[str, str] = {group.name: f"nodes.{i}" for i, group in enumerate(groups)}
    for i, group in enumerate(groups):
        for k, name in enumerate(group.node_names()):
            at = f"nodes.{i}.hosts.{k}" if group.hosts else f"nodes.{i}"
            home = first.setdefault(name, at)
            if home not in (at, f"nodes.{i}"):
                yield FieldError(at, repr(name), f"a name that {home} does not have")


def _without_null(document: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    unsaid = {field for field in fields if document.get(field) is None}
    return {key: value for key, value in document.items() if key not in unsaid}


_OPTIONAL_OF_NODES = ("hosts", "islands", "topology", "gpu_uuids", "pci_bus_ids")
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
