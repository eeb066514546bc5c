"""Bytes on one GPU of a stage, exact (docs/cost-model.md, sections 3 and 8)."""

from __future__ import annotations

import math
from fractions import Fraction

from shardwright.check.exact import bytes_per_value, ceil_sqrt, exact, whole_bytes
from shardwright.check.experts import (
    expert_bytes,
    held_experts,
    slot_small,
    slots_of,
)
from shardwright.check.lengths import Mix
from shardwright.check.rank import (
    attention_of,
    rank_matrices,
    small_weights,
    working_width,
)
from shardwright.check.stage import (
    StageView,
    cache_parts,
    cuts_cache,
    padded_vocabulary,
    shard,
    vocabulary_shard,
)
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, MoeFfn
from shardwright.schema.plan import MemoryParts, PoolRole
from shardwright.schema.workload import Workload

P99_QUANTILE = Fraction(233, 100)
LOGIT_BYTES = 4


def memory_of(view: StageView) -> MemoryParts:
    """The five parts of one GPU of the stage that has attention."""
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
    layers = sum(layer_weight_bytes(view, kind) for kind in view.kinds)
    return layers + _extra_weight_bytes(view)


def layer_weight_bytes(view: StageView, kind: LayerKind) -> int:
    """Matrices of each format, experts and small weights, each rounded up."""
    matrices = rank_matrices(view, kind).items()
    total = sum(whole_bytes(n * bytes_per_value(dtype)) for dtype, n in matrices)
    small = small_weights(view, kind)
    if isinstance(kind.ffn, MoeFfn) and not view.layout.apart:
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


def kv_tokens(workload: Workload, mix: Mix, sequences: int, role: PoolRole) -> int:
    """R(M): tokens that the cache must hold, of prompts alone in a prefill replica."""
    mean, variance = mix.kv_mean, mix.kv_variance
    if role == "prefill":
        mean, variance = mix.mean_input, mix.input_variance
    full = sequences * workload.max_context_tokens
    if workload.kv_reserve == "max_context":
        return full
    square = P99_QUANTILE**2 * sequences * variance
    root = Fraction(ceil_sqrt(math.ceil(square * 10**12)), 10**6)
    expected = math.ceil(sequences * mean + root)
    return max(min(full, expected), workload.max_context_tokens)


def kv_cache_bytes(view: StageView) -> int:
    """The cache of a rank's sequences, in all micro-batches, for the stage's layers."""
    workload, role = view.instance.workload, view.point.role
    tokens = kv_tokens(workload, view.mix, view.resident_sequences, role)
    return sum(_layer_kv_bytes(view, kind, tokens) for kind in view.kinds)


def _layer_kv_bytes(view: StageView, kind: LayerKind, tokens: int) -> int:
    attention = attention_of(view, kind)
    if attention is None:
        return 0
    if attention.window is not None:
        tokens = min(tokens, view.resident_sequences * attention.window)
    tokens = shard(tokens, cache_parts(view))
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
    several = view.layout.all_gpus > 1
    groups = int(several) + int(view.stages > 1) + int(view.layout.cp > 1)
    total = groups * view.spec.calibration.communicator_memory_bytes
    if several:
        values = _iteration_tokens(view) * view.instance.model.hidden
        total += whole_bytes(values * _activation(view) * _copies(view))
    return total + _context_buffer_bytes(view)


def _context_buffer_bytes(view: StageView) -> int:
    """Keys and values of a chunk and of as much of the cache; hidden states."""
    if view.layout.cp == 1:
        return 0
    found = (attention_of(view, kind) for kind in view.instance.model.layer_kinds)
    widest = max((one.cached for one in found if one is not None), default=0)
    values = widest * (1 + int(cuts_cache(view)))
    values += view.instance.model.hidden * int(view.last)
    return whole_bytes(view.point.chunk * values * _activation(view))


def _copies(view: StageView) -> int:
    """1 + [D' > 1 or experts apart]·K: a token is sent once for each of its experts."""
    if view.layout.ranks_per_copy <= 1 and not view.layout.apart:
        return 1
    return 1 + max((block.top_k for block in _blocks(view)), default=0)


def _blocks(view: StageView) -> list[MoeFfn]:
    """The mixtures of all kinds of the model, whether a layer has them or not."""
    blocks = (kind.ffn for kind in view.instance.model.layer_kinds)
    return [block for block in blocks if isinstance(block, MoeFfn)]


def expert_memory_of(view: StageView) -> MemoryParts:
    """The five parts of an expert GPU (section 11)."""
    return MemoryParts(
        weights=sum(_expert_layer_bytes(view, kind) for kind in view.kinds),
        kv_cache=0,
        activations=_pair_bytes(view),
        communication=_pair_buffer_bytes(view),
        framework=framework_bytes(view),
    )


def _expert_layer_bytes(view: StageView, kind: LayerKind) -> int:
    if not isinstance(kind.ffn, MoeFfn):
        return 0
    small = slots_of(view, kind.ffn) * slot_small(view, kind.ffn)
    matrices = whole_bytes(expert_bytes(view, kind.ffn))
    return matrices + whole_bytes(small * _activation(view))


def _pairs(view: StageView, ffn: MoeFfn) -> int:
    """P_g: pairs of a token and an expert on one expert GPU."""
    tokens = view.point.micro_batch_sequences + view.point.chunk
    pairs = tokens * ffn.top_k * slots_of(view, ffn)
    return math.ceil(Fraction(pairs, held_experts(view, ffn)))


def _pair_bytes(view: StageView) -> int:
    hidden, moe_tp = view.instance.model.hidden, view.layout.moe_tp
    values = (
        _pairs(view, ffn) * (2 * hidden + 2 * shard(ffn.intermediate, moe_tp))
        for ffn in _blocks(view)
    )
    return whole_bytes(max(values, default=0) * _activation(view))


def _pair_buffer_bytes(view: StageView) -> int:
    most = max((_pairs(view, ffn) for ffn in _blocks(view)), default=0)
    values = 2 * most * view.instance.model.hidden
    communicator = view.spec.calibration.communicator_memory_bytes
    return communicator + whole_bytes(values * _activation(view))


def framework_bytes(view: StageView) -> int:
    """What the framework takes, and the reserve that the instance asks for."""
    reserve = view.instance.limits.reserve_per_gpu_bytes
    return view.spec.calibration.framework_memory_bytes + reserve


def _iteration_tokens(view: StageView) -> int:
    return view.rank_sequences + shard(view.point.chunk, view.layout.cp)


def _activation(view: StageView) -> Fraction:
    return bytes_per_value(view.instance.precision.activations)
