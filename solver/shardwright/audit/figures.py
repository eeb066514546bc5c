"""What an instance says by itself: model, cluster, targets, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from shardwright.audit.evidence import Reading, Undecidable
from shardwright.cost.lengths import exact
from shardwright.ingest.parameters import parameter_count
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import AnyAttention, MoeFfn
from shardwright.schema.printed import (
    BANDWIDTH,
    BYTE,
    COMPUTE,
    COUNT,
    RATE,
    SECOND,
    Dimension,
)
from shardwright.schema.workload import BYTES_PER_PARAMETER

GIGA = 10**9


@dataclass(frozen=True)
class Figure:
    """A figure of the instance with what it rests on."""

    dimension: Dimension
    readings: tuple[Reading, ...]
    source: str
    needs: frozenset[str] = frozenset()


def figure(instance: Instance, name: str) -> Figure:
    """The figure of this name. Raises Undecidable where the instance has none."""
    if name.startswith("target_"):
        return _target(instance, name)
    return _FIGURES[name](instance)


def number(instance: Instance, name: str) -> Fraction:
    """The first reading of a figure, in base units. Raises Undecidable."""
    return figure(instance, name).readings[0].value


def gpu_type(instance: Instance) -> GpuSpec:
    """The only GPU type of the nodes. Raises Undecidable where there are several."""
    used = {group.gpu for group in instance.cluster.nodes}
    if len(used) > 1:
        raise Undecidable(f"which of the GPU types {', '.join(sorted(used))}")
    return instance.cluster.gpu_types[used.pop()]


def weight_bytes(instance: Instance) -> Fraction:
    """Bytes of one parameter in the weights' format."""
    return Fraction(*BYTES_PER_PARAMETER[instance.precision.weights])


def activation_bytes(instance: Instance) -> Fraction:
    """Bytes of one activation."""
    return Fraction(*BYTES_PER_PARAMETER[instance.precision.activations])


def mixtures(instance: Instance) -> list[MoeFfn]:
    """The FFN of every layer that has experts."""
    model = instance.model
    kinds = [model.layer_kinds[i].ffn for i in model.kind_indices()]
    return [ffn for ffn in kinds if isinstance(ffn, MoeFfn)]


def attention(instance: Instance) -> AnyAttention:
    """The attention of all layers. Raises Undecidable where layers differ."""
    kinds = {k.attention for k in instance.model.layer_kinds if k.attention is not None}
    if len(kinds) != 1:
        raise Undecidable("which of the model's kinds of attention")
    return kinds.pop()


def _one(
    value: Fraction | int, source: str, dimension: Dimension = COUNT, *needs: str
) -> Figure:
    return Figure(dimension, (Reading(Fraction(value)),), source, frozenset(needs))


def _given(value: float | None, source: str, dimension: Dimension, need: str) -> Figure:
    if value is None:
        raise Undecidable(f"{source}: the instance has none")
    return _one(exact(value), source, dimension, *([need] if need else []))


def _gpus(i: Instance) -> Figure:
    total = sum(g.count * g.gpus for g in i.cluster.nodes)
    return _one(total, "GPUs of cluster.nodes")


def _nodes(i: Instance) -> Figure:
    return _one(sum(g.count for g in i.cluster.nodes), "cluster.nodes")


def _gpus_per_node(i: Instance) -> Figure:
    sizes = {g.gpus for g in i.cluster.nodes}
    if len(sizes) > 1:
        raise Undecidable(f"which node: they have {sorted(sizes)} GPUs")
    return _one(sizes.pop(), "cluster.nodes.gpus")


def _cluster_memory(i: Instance) -> Figure:
    types = i.cluster.gpu_types
    groups = i.cluster.nodes
    total = sum(g.count * g.gpus * types[g.gpu].memory_bytes for g in groups)
    return _one(total, "memory of all GPUs", BYTE)


def _usable(i: Instance) -> Figure:
    share = exact(i.limits.memory_fraction)
    memory = gpu_type(i).memory_bytes
    source = f"{float(share):g} of {memory / GIGA:g} GB"
    return _one(share * memory, source, BYTE, "memory_limit")


def _heads(i: Instance) -> Figure:
    return _one(attention(i).heads, "attention.heads", COUNT, "widths")


def _kv_heads(i: Instance) -> Figure:
    return _one(attention(i).kv_heads, "attention.kv_heads", COUNT, "widths")


def _experts(i: Instance) -> Figure:
    counts = {ffn.experts for ffn in mixtures(i)}
    if len(counts) != 1:
        raise Undecidable("experts: the model has none, or layers differ")
    return _one(counts.pop(), "experts of a layer")


def _instances(i: Instance) -> Figure:
    ffns = mixtures(i)
    source = f"experts over {len(ffns)} layers"
    return _one(sum(ffn.experts for ffn in ffns), source)


def _parameters(i: Instance) -> Figure:
    count = parameter_count(i.model)
    return _one(count, f"{count:,} parameters counted", COUNT, "parameters")


def _weights(i: Instance) -> Figure:
    count, width = parameter_count(i.model), weight_bytes(i)
    source = f"{count:,} parameters x {float(width):g} B"
    return _one(count * width, source, BYTE, "parameters", "formats")


def _layer_weights(i: Instance) -> Figure:
    from shardwright.ingest.parameters import layer_parameters

    model = i.model
    sizes = {layer_parameters(k, model.hidden) for k in model.layer_kinds}
    if len(sizes) > 1:
        raise Undecidable("which layer: their sizes differ")
    count = sizes.pop()
    source = f"{count:,} parameters of a layer x {float(weight_bytes(i)):g} B"
    return _one(count * weight_bytes(i), source, BYTE, "widths", "formats")


def _compute(i: Instance) -> Figure:
    gpu, dtype = gpu_type(i), i.precision.activations
    tflops = gpu.dense_tflops[dtype]
    return _given(tflops * 10**12, f"dense {dtype} of {gpu.name}", COMPUTE, "compute")


def _hbm(i: Instance) -> Figure:
    rate = gpu_type(i).hbm_gbyte_per_s
    return _given(rate * GIGA, "hbm_gbyte_per_s", BANDWIDTH, "hbm")


def _link(i: Instance) -> Figure:
    gpu = gpu_type(i)
    rate = exact(gpu.link_gbyte_per_s) * GIGA
    readings = (
        Reading(rate, "in each direction"),
        Reading(2 * rate, "both directions together"),
    )
    source = (
        f"{gpu.link_technology}: {float(rate) / GIGA:g} GB/s each way, "
        f"{float(rate) * 2 / GIGA:g} GB/s both ({float(rate) * 8 / GIGA:,.0f} and "
        f"{float(rate) * 16 / GIGA:,.0f} Gb/s)"
    )
    return Figure(BANDWIDTH, readings, source, frozenset({"link"}))


def _network(i: Instance) -> Figure:
    rate = gpu_type(i).network_gbyte_per_s
    return _given(rate * GIGA, "network_gbyte_per_s", BANDWIDTH, "network")


def _positions(i: Instance) -> Figure:
    return _given(i.model.max_position_tokens, "positions of the model", COUNT, "")


def _input_tokens(i: Instance) -> Figure:
    lengths = i.workload.input_tokens
    mean = lengths.constant or lengths.mean
    return _given(mean, "workload.input_tokens", COUNT, "input_tokens")


_FIGURES: dict[str, Callable[[Instance], Figure]] = {
    "gpus": _gpus,
    "nodes": _nodes,
    "gpus_per_node": _gpus_per_node,
    "gpu_memory": lambda i: _one(gpu_type(i).memory_bytes, "memory of a GPU", BYTE),
    "cluster_memory": _cluster_memory,
    "usable_memory": _usable,
    "memory_fraction": lambda i: _given(
        i.limits.memory_fraction, "limits.memory_fraction", COUNT, "memory_limit"
    ),
    "layers": lambda i: _one(len(i.model.layers), "layers of the model"),
    "hidden": lambda i: _one(i.model.hidden, "hidden width", COUNT, "widths"),
    "heads": _heads,
    "kv_heads": _kv_heads,
    "vocabulary": lambda i: _one(i.model.vocabulary, "vocabulary", COUNT, "widths"),
    "positions": _positions,
    "experts": _experts,
    "expert_instances": _instances,
    "parameters": _parameters,
    "weights": _weights,
    "bytes_per_parameter": lambda i: _one(
        weight_bytes(i), f"weights in {i.precision.weights}", COUNT, "formats"
    ),
    "layer_weights": _layer_weights,
    "gpu_compute": _compute,
    "hbm_bandwidth": _hbm,
    "link_bandwidth": _link,
    "network_bandwidth": _network,
    "max_batch": lambda i: _given(
        i.workload.max_batch, "workload.max_batch", COUNT, "max_batch"
    ),
    "max_context": lambda i: _given(
        i.workload.max_context_tokens, "workload.max_context_tokens", COUNT,
        "max_context",
    ),
    "input_tokens": _input_tokens,
    "request_rate": lambda i: _given(
        i.workload.request_rate_per_s, "workload.request_rate_per_s", RATE, ""
    ),
    "limit_memory_imbalance": lambda i: _given(
        i.limits.memory_imbalance, "limits.memory_imbalance", COUNT, ""
    ),
    "limit_communication_share": lambda i: _given(
        i.limits.communication_share, "limits.communication_share", COUNT, ""
    ),
    "spare_gpus": lambda i: _one(i.limits.spare_gpus, "limits.spare_gpus"),
}  # fmt: skip


def _target(instance: Instance, name: str) -> Figure:
    """``target_METRIC`` or ``target_METRIC_pNN``: the tightest such target."""
    _, metric, *rest = name.split("_")
    percentile = float(rest[0][1:]) if rest else "mean"
    found = [
        target.limit_ms
        for target in instance.slo
        if target.metric == metric and target.percentile == percentile
    ]
    if not found:
        raise Undecidable(f"a target on {metric}: the instance has none")
    value = exact(min(found)) / 1000
    return _one(value, f"slo of the instance on {metric}", SECOND)
