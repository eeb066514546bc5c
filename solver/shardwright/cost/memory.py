"""Exact memory of one GPU, by part (docs/cost-model.md section 3). All in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shardwright.cost.lengths import ceil_div
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import LayerKind, ModelSpec
from shardwright.schema.workload import BYTES_PER_PARAMETER, Limits, Precision

Role = Literal["middle", "first", "last", "only"]
ROLES: tuple[Role, ...] = ("middle", "first", "last", "only")
"""Roles of a stage; the index into this tuple is used in every table."""

MIDDLE, FIRST, LAST, ONLY = range(4)
_VOCABULARY_PADDING = 64


def value_bytes(dtype: str) -> tuple[int, int]:
    """Bytes of one value as numerator and denominator."""
    return BYTES_PER_PARAMETER[dtype]


def padded_vocabulary(vocabulary: int) -> int:
    """Vocabulary padded as engines pad it, to a multiple of 64."""
    return ceil_div(vocabulary, _VOCABULARY_PADDING) * _VOCABULARY_PADDING


@dataclass(frozen=True)
class RankLayer:
    """One layer kind as one rank of ``tp`` sees it."""

    matrix_parameters: int
    small_parameters: int
    query_heads: int
    kv_heads: int
    head_dim: int
    window_tokens: int | None
    collectives: int
    widest: int

    @classmethod
    def of(cls, spec: ModelSpec, kind: LayerKind, tp: int) -> RankLayer:
        """Shard of ``kind`` on one of ``tp`` ranks; widths round up."""
        h, attention, ffn = spec.hidden, kind.gqa, kind.dense
        matrix, small, widest = 0, kind.norm_width, 0
        heads = kv_heads = head_dim = 0
        window = None
        if attention is not None:
            heads = ceil_div(attention.heads, tp)
            kv_heads = ceil_div(attention.kv_heads, tp)
            head_dim, window = attention.head_dim, attention.window_tokens
            matrix += h * head_dim * (2 * heads + 2 * kv_heads)
            small += (heads + 2 * kv_heads) * head_dim if attention.qkv_bias else 0
            small += h if attention.output_bias else 0
            small += attention.qk_norm_width
            widest = (2 * heads + 2 * kv_heads) * head_dim
        if ffn is not None:
            width = ceil_div(ffn.intermediate, tp)
            matrix += ffn.matrices * h * width
            small += (ffn.matrices - 1) * width + h if ffn.bias else 0
            widest = max(widest, 2 * width)
        collectives = int(attention is not None) + int(ffn is not None)
        return cls(
            matrix, small, heads, kv_heads, head_dim, window, collectives, widest
        )

    def weight_bytes(self, precision: Precision) -> int:
        """Weights of the layer on one rank."""
        numerator, denominator = value_bytes(precision.weights)
        small_bytes, _ = value_bytes(precision.activations)
        matrix = ceil_div(self.matrix_parameters * numerator, denominator)
        return matrix + self.small_parameters * small_bytes

    def kv_bytes_per_token(self, precision: Precision) -> int:
        """KV cache of one token in this layer on one rank."""
        numerator, denominator = value_bytes(precision.kv_cache)
        return 2 * self.kv_heads * self.head_dim * numerator // denominator

    def kv_bytes(self, precision: Precision, room: int, sequences: int) -> int:
        """KV cache of the layer when ``room`` tokens are resident."""
        if self.window_tokens is not None:
            room = min(room, sequences * self.window_tokens)
        return room * self.kv_bytes_per_token(precision)


def vocabulary_matrix_bytes(spec: ModelSpec, precision: Precision, tp: int) -> int:
    """One rank's share of the embedding (or of the LM head)."""
    rows = ceil_div(padded_vocabulary(spec.vocabulary), tp)
    return rows * spec.hidden * value_bytes(precision.activations)[0]


def stage_weight_bytes(
    spec: ModelSpec, precision: Precision, tp: int, role: int
) -> int:
    """Weights of a stage outside its layers, by role."""
    matrix = vocabulary_matrix_bytes(spec, precision, tp)
    norm = spec.final_norm_width * value_bytes(precision.activations)[0]
    if role == FIRST:
        return matrix
    if role == LAST:
        return matrix + norm
    if role == ONLY:
        return matrix * (1 if spec.tied_embeddings else 2) + norm
    return 0


def activation_bytes(
    spec: ModelSpec,
    precision: Precision,
    ranks: tuple[RankLayer, ...],
    iteration_tokens: int,
    logit_rows: int,
    role: int,
) -> int:
    """Peak activations of one iteration, logits included on the last stage."""
    a = value_bytes(precision.activations)[0]
    widest = max(rank.widest for rank in ranks)
    peak = iteration_tokens * a * (3 * spec.hidden + widest)
    if role in (LAST, ONLY):
        peak += logit_rows * padded_vocabulary(spec.vocabulary) * 4
    return peak


def communication_bytes(
    spec: ModelSpec,
    precision: Precision,
    gpu: GpuSpec,
    tp: int,
    iteration_tokens: int,
    role: int,
) -> int:
    """Communicators and the collective's buffer."""
    constant = gpu.calibration.communicator_memory_bytes
    total = constant * (int(tp > 1) + int(role != ONLY))
    if tp > 1:
        a = value_bytes(precision.activations)[0]
        total += iteration_tokens * spec.hidden * a
    return total


def framework_bytes(gpu: GpuSpec, limits: Limits) -> int:
    """Context, graphs and the reserve asked for."""
    return gpu.calibration.framework_memory_bytes + limits.reserve_per_gpu_bytes
