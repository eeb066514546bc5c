"""Bytes on one GPU of a stage, exact (docs/cost-model.md, sections 3 and 8)."""

from __future__ import annotations

import math
from fractions import Fraction

from shardwright.check.exact import bytes_per_value, ceil_sqrt, exact, whole_bytes
from shardwright.check.experts import expert_bytes, slot_small, slots_of
from shardwright.check.lengths import Mix
from shardwright.check.rank import (
    attention_of,
    rank_matrices,
    small_weights,
    working_width,
)
from shardwright.check.stage import (
    StageView,
    expert_blocks,
    padded_vocabulary,
    vocabulary_shard,
)
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, MoeFfn
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
    """Matrices of each format, experts and small weights, each rounded up."""
    matrices = rank_matrices(view, kind).items()
    total = sum(whole_bytes(n * bytes_per_value(dtype)) for dtype, n in matrices)
    small = small_weights(view, kind)
    if isinstance(kind.ffn, MoeFfn):
        total += whole_bytes(expert_bytes(view, kind.ffn))
        small += slots_of(view, kind.ffn) * slot_small(view, kind.ffn)
    return total + whole_bytes(small * _activation(view))


def _extra_weight_bytes(view: StageView) -> int:
    model = view.instance.model
    rows = vocabulary_shard(model, view.tp)
    copies = int(view.first) + int(view.last)
    if view.first and view.last and model.tied_embeddings:
        copies = 1
    values = copies * rows * model.hidden
    if view.last:
        values += model.final_norm_width + (rows if model.lm_head_bias else 0)
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
    """The cache of a rank's sequences, in all micro-batches, for the stage's layers."""
    tokens = kv_tokens(view.instance.workload, view.mix, view.resident_sequences)
    return sum(_layer_kv_bytes(view, kind, tokens) for kind in view.kinds)


def _layer_kv_bytes(view: StageView, kind: LayerKind, tokens: int) -> int:
    attention = attention_of(view, kind)
    if attention is None:
        return 0
    if attention.window is not None:
        tokens = min(tokens, view.resident_sequences * attention.window)
    kappa = bytes_per_value(view.instance.precision.kv_cache)
    return whole_bytes(tokens * attention.cached * kappa)


def activation_bytes(view: StageView) -> int:
    """Working tensors of one iteration, and the logits on the last stage."""
    model = view.instance.model
    widest = max(working_width(view, kind) for kind in model.layer_kinds)
    values = _iteration_tokens(view) * (3 * model.hidden + widest)
    total = whole_bytes(values * _activation(view))
    return total + (_logit_bytes(view) if view.last else 0)


def _logit_bytes(view: StageView) -> int:
    rows = view.rank_sequences + math.ceil(view.point.chunk / view.mix.computed)
    return rows * padded_vocabulary(view.instance.model) * LOGIT_BYTES


def communication_bytes(view: StageView) -> int:
    """Communicators of the stage and the pipeline, and the buffers of collectives."""
    groups = int(view.layout.gpus > 1) + int(view.stages > 1)
    total = groups * view.spec.calibration.communicator_memory_bytes
    if view.layout.gpus > 1:
        values = _iteration_tokens(view) * view.instance.model.hidden
        total += whole_bytes(values * _activation(view) * _copies(view))
    return total


def _copies(view: StageView) -> int:
    """1 + [d > 1]·K: dispatch sends a token once for each of its experts."""
    if view.layout.attn_dp == 1:
        return 1
    blocks = expert_blocks(view.instance.model)
    return 1 + max(block.top_k for block in blocks)


def framework_bytes(view: StageView) -> int:
    """What the framework takes, and the reserve that the instance asks for."""
    reserve = view.instance.limits.reserve_per_gpu_bytes
    return view.spec.calibration.framework_memory_bytes + reserve


def _iteration_tokens(view: StageView) -> int:
    return view.rank_sequences + view.point.chunk


def _activation(view: StageView) -> Fraction:
    return bytes_per_value(view.instance.precision.activations)
