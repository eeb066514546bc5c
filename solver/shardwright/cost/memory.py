"""Exact memory of one GPU outside its layers (docs/cost-model.md section 3). Bytes."""

from __future__ import annotations

from typing import Literal

from shardwright.cost.lengths import ceil_div
from shardwright.cost.rank import RankLayer, value_bytes
from shardwright.cost.shape import StageShape
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import ModelSpec, MoeFfn
from shardwright.schema.workload import Limits, Precision

Role = Literal["middle", "first", "last", "only"]
ROLES: tuple[Role, ...] = ("middle", "first", "last", "only")
"""Roles of a stage; the index into this tuple is used in every table."""

MIDDLE, FIRST, LAST, ONLY = range(4)
_VOCABULARY_PADDING = 64


def padded_vocabulary(vocabulary: int) -> int:
    """Vocabulary padded as engines pad it, to a multiple of 64."""
    return ceil_div(vocabulary, _VOCABULARY_PADDING) * _VOCABULARY_PADDING


def vocabulary_matrix_bytes(spec: ModelSpec, precision: Precision, tp: int) -> int:
    """One rank's share of the embedding (or of the LM head)."""
    rows = ceil_div(padded_vocabulary(spec.vocabulary), tp)
    return rows * spec.hidden * value_bytes(precision.activations)[0]


def stage_weight_bytes(
    spec: ModelSpec, precision: Precision, tp: int, role: int
) -> int:
    """Weights of a stage outside its layers, by role."""
    matrix = vocabulary_matrix_bytes(spec, precision, tp)
    a = value_bytes(precision.activations)[0]
    ends = spec.final_norm_width * a
    if spec.lm_head_bias:
        ends += ceil_div(padded_vocabulary(spec.vocabulary), tp) * a
    if role == FIRST:
        return matrix
    if role == LAST:
        return matrix + ends
    if role == ONLY:
        return matrix * (1 if spec.tied_embeddings else 2) + ends
    return 0


def activation_bytes(
    spec: ModelSpec,
    precision: Precision,
    ranks: tuple[RankLayer, ...],
    rank_tokens: int,
    logit_rows: int,
    role: int,
) -> int:
    """Peak activations of one iteration, logits included on the last stage.

    ``rank_tokens`` are those of one rank (``tokens_of_rank``).
    """
    a = value_bytes(precision.activations)[0]
    widest = max(rank.widest for rank in ranks)
    peak = rank_tokens * a * (3 * spec.hidden + widest)
    if role in (LAST, ONLY):
        peak += logit_rows * padded_vocabulary(spec.vocabulary) * 4
    return peak


def tokens_of_rank(shape: StageShape, sequences: int, chunk: int) -> int:
    """Tokens of one rank of a context group that has these."""
    return sequences + ceil_div(chunk, shape.cp)


def communication_bytes(
    spec: ModelSpec,
    precision: Precision,
    gpu: GpuSpec,
    shape: StageShape,
    ranks: tuple[RankLayer, ...],
    batch: tuple[int, int],
    role: int,
) -> int:
    """Communicators, the collective's buffer, and those of exchange and context group.

    ``batch`` is (tokens of a rank, chunk tokens of its context group).
    """
    constant = gpu.calibration.communicator_memory_bytes
    total = constant * (int(shape.gpus > 1) + int(role != ONLY) + int(shape.cp > 1))
    if shape.gpus > 1:
        a = value_bytes(precision.activations)[0]
        exchanged = shape.ranks_per_copy > 1 or shape.disaggregated
        copies = 1 + (most_experts_per_token(spec) if exchanged else 0)
        total += batch[0] * spec.hidden * a * copies
    if shape.cp > 1:
        total += _gathered_bytes(spec, precision, shape, ranks, batch[1], role)
    return total


def _gathered_bytes(
    spec: ModelSpec,
    precision: Precision,
    shape: StageShape,
    ranks: tuple[RankLayer, ...],
    chunk: int,
    role: int,
) -> int:
    """Keys and values of a chunk (and of as much context), and its hidden states."""
    cached = [rank.attention.kv_values for rank in ranks if rank.attention]
    values = max(cached, default=0) * (2 if shape.kv_shards > 1 else 1)
    values += spec.hidden if role in (LAST, ONLY) else 0
    return chunk * values * value_bytes(precision.activations)[0]


def most_experts_per_token(spec: ModelSpec) -> int:
    """Largest top_k of the model's layers; 0 without experts."""
    return max(
        (k.ffn.top_k for k in spec.layer_kinds if isinstance(k.ffn, MoeFfn)), default=0
    )


def framework_bytes(gpu: GpuSpec, limits: Limits) -> int:
    """Context, graphs and the reserve asked for."""
    return gpu.calibration.framework_memory_bytes + limits.reserve_per_gpu_bytes
