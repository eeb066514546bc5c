"""Variants of an instance that a user could choose: one change each."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, get_args

from shardwright.ingest import catalogue
from shardwright.ingest.consistency import consistency_errors
from shardwright.schema.cluster import Cluster, GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.workload import BYTES_PER_PARAMETER, DType, SloTarget


def consistent(instance: Instance) -> bool:
    """Whether the variant is an instance that would be accepted."""
    return not consistency_errors(instance)


def with_workload(instance: Instance, **fields: Any) -> Instance:
    """Another workload."""
    workload = instance.workload.model_copy(update=fields)
    return instance.model_copy(update={"workload": workload})


def with_limits(instance: Instance, **fields: Any) -> Instance:
    """Other limits."""
    limits = instance.limits.model_copy(update=fields)
    return instance.model_copy(update={"limits": limits})


def with_precision(instance: Instance, **fields: Any) -> Instance:
    """Other number formats."""
    precision = instance.precision.model_copy(update=fields)
    return instance.model_copy(update={"precision": precision})


def with_target(instance: Instance, target: SloTarget, limit_ms: float) -> Instance:
    """One target at another limit."""
    slo = tuple(
        t.model_copy(update={"limit_ms": limit_ms}) if t == target else t
        for t in instance.slo
    )
    return instance.model_copy(update={"slo": slo})


def with_looser_targets(instance: Instance, factor: float) -> Instance:
    """Every target times a factor."""
    slo = tuple(
        t.model_copy(update={"limit_ms": t.limit_ms * factor}) for t in instance.slo
    )
    return instance.model_copy(update={"slo": slo})


def only_target(instance: Instance, target: SloTarget) -> Instance:
    """Nothing asked for but one target."""
    return without_rate(instance).model_copy(update={"slo": (target,)})


def without_rate(instance: Instance) -> Instance:
    """Most requests/s that the cluster sustains."""
    free = with_workload(instance, request_rate_per_s=None)
    free = with_limits(free, survive=())
    return free.model_copy(update={"objective": ("throughput", "gpus")})


def with_nodes(instance: Instance, group: int, count: int) -> Instance:
    """Another number of nodes in one group; listed hosts are forgotten."""
    nodes = list(instance.cluster.nodes)
    update = {"count": count, "hosts": None, "gpu_uuids": None, "pci_bus_ids": None}
    nodes[group] = nodes[group].model_copy(update=update)
    return _with_cluster(instance, tuple(nodes), instance.cluster.gpu_types)


def _with_cluster(
    instance: Instance, nodes: Any, types: dict[str, GpuSpec]
) -> Instance:
    cluster = Cluster.model_construct(gpu_types=types, nodes=nodes, fabric=None)
    return instance.model_copy(update={"cluster": cluster})


def with_gpu(instance: Instance, name: str) -> Instance:
    """Every node with GPUs of one catalogue type, as many as before."""
    spec = catalogue.gpu(name)
    nodes = tuple(
        group.model_copy(
            update={
                "gpu": name,
                "island_gpus": None,
                "islands": None,
                "topology": None,
            }
        )
        for group in instance.cluster.nodes
    )
    return _with_cluster(instance, nodes, {name: spec})


def other_gpus(instance: Instance) -> list[str]:
    """Catalogue types not in the cluster, from the least to the largest step up.

    Ordered by memory and bandwidth together, those at least as good as what is there.
    """
    mine = [instance.cluster.gpu_types[g.gpu] for g in instance.cluster.nodes]
    known = {spec.name for spec in mine}
    strength = {n: _strength(catalogue.gpu(n)) for n in catalogue.names("gpu")}
    least = max(_strength(spec) for spec in mine)
    better = [n for n, s in strength.items() if s > least and n not in known]
    return sorted(better, key=lambda n: strength[n])


def _strength(spec: GpuSpec) -> float:
    return spec.memory_bytes * spec.hbm_gbyte_per_s


def smaller_formats(instance: Instance) -> Iterator[tuple[str, Instance]]:
    """Weights and KV cache in fewer bits, where the GPUs and the engine take them."""
    precision = instance.precision
    for weights in get_args(DType):
        smaller = _bytes(weights) < _bytes(precision.weights)
        if smaller and weights in ("fp8", "int4"):
            yield f"{weights} weights", with_precision(instance, weights=weights)
    if _bytes(precision.kv_cache) > 1:
        yield "fp8 KV cache", with_precision(instance, kv_cache="fp8")
        if _bytes(precision.weights) > 1:
            both = with_precision(instance, weights="fp8", kv_cache="fp8")
            yield "fp8 weights and KV cache", both


def bytes_given_up(before: Instance, after: Instance) -> float:
    """Share of the bytes of one weight and one cached value that a format saves."""
    old, new = (
        _bytes(i.precision.weights) + _bytes(i.precision.kv_cache)
        for i in (before, after)
    )
    return float(1 - new / old)


def _bytes(dtype: DType) -> Fraction:
    return Fraction(*BYTES_PER_PARAMETER[dtype])


def gpu_step(mine: GpuSpec, theirs: GpuSpec) -> float:
    """By how much another GPU has more, of memory or of bandwidth."""
    memory = theirs.memory_bytes / mine.memory_bytes
    return max(memory, theirs.hbm_gbyte_per_s / mine.hbm_gbyte_per_s) - 1
