"""Bytes on one GPU of a stage, exact (docs/cost-model.md, section 3)."""

from __future__ import annotations

import math
from fractions import Fraction

from shardwright.check.exact import bytes_per_value, ceil_sqrt, exact, whole_bytes
from shardwright.check.lengths import Mix
from shardwright.check.stage import (
    StageView,
    attention_outputs,
    linear_weights,
    padded_vocabulary,
    shard,
    small_weights,
    vocabulary_shard,
)
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind
from shardwright.schema.plan import MemoryParts
from shardwright.schema.workload import Workload

P99_QUANTILE = Fraction(233, 100)
LOGIT_BYTES = 4


def memory_of(view: StageView) -> MemoryParts:
    """The five parts of one GPU of the stage."""
    return MemoryParts(
        weights=weights_bytes(view),
        kv_cache=kv_cache_bytes(view),
        activations=activation_bytes(view),
        communication=communication_bytes(view),
        framework=framework_bytes(view),
    )


def memory_cap_bytes(instance: Instance, spec: GpuSpec) -> int:
    """⌊memory_fraction · memory⌋."""
    return math.floor(exact(instance.limits.memory_fraction) * spec.memory_bytes)


def weights_bytes(view: StageView) -> int:
    """Layers, and the embedding, LM head and final norm where they stand."""
    layers = sum(_layer_weight_bytes(view, kind) for kind in view.kinds)
    return layers + _extra_weight_bytes(view)


def _layer_weight_bytes(view: StageView, kind: LayerKind) -> int:
    hidden = view.instance.model.hidden
    matrices = linear_weights(kind, hidden, view.tp)
    small = small_weights(kind, hidden, view.tp)
    weight = bytes_per_value(view.instance.precision.weights)
    return whole_bytes(matrices * weight) + whole_bytes(small * _activation(view))


def _extra_weight_bytes(view: StageView) -> int:
    model = view.instance.model
    copies = int(view.first) + int(view.last)
    if view.first and view.last and model.tied_embeddings:
        copies = 1
    values = copies * vocabulary_shard(model, view.tp) * model.hidden
    if view.last:
        values += model.final_norm_width
    return whole_bytes(values * _activation(view))


def kv_tokens(workload: Workload, mix: Mix, sequences: int) -> int:
    """R(M): tokens that the cache of a replica must hold."""
    full = sequences * workload.max_context_tokens
    if workload.kv_reserve == "max_context":
        return full
    square = P99_QUANTILE**2 * sequences * mix.kv_variance
    root = Fraction(ceil_sqrt(math.ceil(square * 10**12)), 10**6)
    expected = math.ceil(sequences * mix.kv_mean + root)
    return max(min(full, expected), workload.max_context_tokens)


def kv_cache_bytes(view: StageView) -> int:
    """Keys and values of all M sequences for the layers of the stage."""
    tokens = kv_tokens(view.instance.workload, view.mix, view.point.sequences)
    return sum(_layer_kv_bytes(view, kind, tokens) for kind in view.kinds)


def _layer_kv_bytes(view: StageView, kind: LayerKind, tokens: int) -> int:
    attention = kind.gqa
    if attention is None:
        return 0
    if attention.window_tokens is not None:
        tokens = min(tokens, view.point.sequences * attention.window_tokens)
    values = tokens * 2 * shard(attention.kv_heads, view.tp) * attention.head_dim
    return whole_bytes(values * bytes_per_value(view.instance.precision.kv_cache))


def activation_bytes(view: StageView) -> int:
    """Working tensors of one iteration, and the logits on the last stage."""
    model = view.instance.model
    widest = max(_working_width(kind, view.tp) for kind in model.layer_kinds)
    values = _iteration_tokens(view) * (3 * model.hidden + widest)
    total = whole_bytes(values * _activation(view))
    return total + (_logit_bytes(view) if view.last else 0)


def _working_width(kind: LayerKind, tp: int) -> int:
    ffn = 2 * shard(kind.dense.intermediate, tp) if kind.dense is not None else 0
    return max(attention_outputs(kind, tp), ffn)


def _logit_bytes(view: StageView) -> int:
    point = view.point
    rows = point.micro_batch_sequences + math.ceil(point.chunk / view.mix.computed)
    return rows * padded_vocabulary(view.instance.model) * LOGIT_BYTES


def communication_bytes(view: StageView) -> int:
    """Communicators of the tensor and pipeline groups, and the all-reduce buffer."""
    groups = int(view.tp > 1) + int(view.stages > 1)
    total = groups * view.spec.calibration.communicator_memory_bytes
    if view.tp > 1:
        values = _iteration_tokens(view) * view.instance.model.hidden
        total += whole_bytes(values * _activation(view))
    return total


def framework_bytes(view: StageView) -> int:
    """What the framework takes, and the reserve that the instance asks for."""
    reserve = view.instance.limits.reserve_per_gpu_bytes
    return view.spec.calibration.framework_memory_bytes + reserve


def _iteration_tokens(view: StageView) -> int:
    return view.point.micro_batch_sequences + view.point.chunk


def _activation(view: StageView) -> Fraction:
    return bytes_per_value(view.instance.precision.activations)
