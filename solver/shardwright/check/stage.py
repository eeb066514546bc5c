"""One stage as the formulas see it: operating point, shard sizes, neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shardwright.check.lengths import Mix
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, ModelSpec
from shardwright.schema.plan import OperatingPoint


@dataclass(frozen=True)
class Point:
    """An operating point with its derived figures recomputed (section 2)."""

    sequences: int
    micro_batches: int
    chunk: int
    micro_batch_sequences: int
    prompt_tokens: int
    chunk_count: int
    prefill_tokens: int


def point_of(claimed: OperatingPoint, mix: Mix) -> Point:
    """M, q and chunk as claimed; m, c, K and s recomputed from them."""
    m = shard(claimed.sequences, claimed.micro_batches)
    chunk_count = math.ceil(mix.computed / claimed.prefill_chunk_tokens)
    return Point(
        sequences=claimed.sequences,
        micro_batches=claimed.micro_batches,
        chunk=claimed.prefill_chunk_tokens,
        micro_batch_sequences=m,
        prompt_tokens=math.ceil(m * mix.computed / mix.mean_output),
        chunk_count=chunk_count,
        prefill_tokens=math.ceil(mix.computed / chunk_count),
    )


@dataclass(frozen=True)
class StageView:
    """A stage of a replica: its GPU type, its layers, where it stands."""

    instance: Instance
    mix: Mix
    point: Point
    spec: GpuSpec
    tp: int
    kinds: tuple[LayerKind, ...]
    index: int
    stages: int

    @property
    def first(self) -> bool:
        """True for the stage that holds the embedding."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """True for the stage that holds the LM head."""
        return self.index == self.stages - 1


def shard(width: int, tp: int) -> int:
    """What the fullest rank holds of a width split over ``tp`` ranks."""
    return -(-width // tp)


def attention_outputs(kind: LayerKind, tp: int) -> int:
    """(H_t + 2·K_t)·D: query, key and value width of one rank; 0 without attention."""
    if kind.gqa is None:
        return 0
    heads, kv_heads = kind.gqa.heads, kind.gqa.kv_heads
    return (shard(heads, tp) + 2 * shard(kv_heads, tp)) * kind.gqa.head_dim


def linear_weights(kind: LayerKind, hidden: int, tp: int) -> int:
    """P: the matrix weights of one layer on one rank."""
    total = 0
    if kind.gqa is not None:
        heads = shard(kind.gqa.heads, tp)
        kv_heads = shard(kind.gqa.kv_heads, tp)
        total += hidden * kind.gqa.head_dim * (2 * heads + 2 * kv_heads)
    if kind.dense is not None:
        total += kind.dense.matrices * hidden * shard(kind.dense.intermediate, tp)
    return total


def small_weights(kind: LayerKind, hidden: int, tp: int) -> int:
    """Q: biases and norms of one layer on one rank."""
    total = kind.norm_width
    if kind.gqa is not None:
        total += kind.gqa.qk_norm_width
        total += attention_outputs(kind, tp) if kind.gqa.qkv_bias else 0
        total += hidden if kind.gqa.output_bias else 0
    if kind.dense is not None and kind.dense.bias:
        total += (kind.dense.matrices - 1) * shard(kind.dense.intermediate, tp) + hidden
    return total


def padded_vocabulary(model: ModelSpec) -> int:
    """V': the vocabulary rounded up to a multiple of 64."""
    return 64 * shard(model.vocabulary, 64)


def vocabulary_shard(model: ModelSpec, tp: int) -> int:
    """V_t: the rows of the embedding or LM head on one rank."""
    return shard(padded_vocabulary(model), tp)
