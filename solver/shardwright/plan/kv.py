"""KV cache of a replica: what a token costs, what is reserved, what would fit."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from shardwright.cost.lengths import ceil_div
from shardwright.plan.anatomy import Anatomy
from shardwright.schema.plan import Replica, Stage


@dataclass(frozen=True)
class KvRoom:
    """KV figures of one replica.

    ``bytes_per_token_gpu`` is the largest of its GPUs, ``bytes_per_token`` the sum
    over those that hold the token (one attention rank of every stage, or all of a
    context group that does not cut its cache); layers with a window are left out, as
    they stop growing.
    ``tokens_capacity`` is what the tightest GPU holds when its free memory is
    given to the cache.
    """

    tokens_reserved: int
    tokens_capacity: int | None
    bytes_per_token_gpu: int
    bytes_per_token: int
    cache_bytes: int


def kv_room(anatomy: Anatomy, replica: Replica) -> KvRoom:
    """KV room of a replica at its operating point."""
    each = [_bytes_per_token(anatomy, stage) for stage in replica.stages]
    rooms = [_rank_tokens(anatomy, replica, stage) for stage in replica.stages]
    fits = [
        stage.shape.attn_dp
        * (room + _shards(anatomy, stage) * _spare_bytes(anatomy, stage) // per_token)
        for stage, room, per_token in zip(replica.stages, rooms, each, strict=True)
        if per_token
    ]
    ranks = [stage.shape.attn_dp for stage in replica.stages]
    sizes = [stage.memory_by_role()[0][1] for stage in replica.stages]
    copies = [
        Fraction(stage.shape.tp * stage.shape.cp, _shards(anatomy, stage))
        for stage in replica.stages
    ]
    return KvRoom(
        tokens_reserved=min(n * d for n, d in zip(rooms, ranks, strict=True)),
        tokens_capacity=max(0, min(fits)) if fits else None,
        bytes_per_token_gpu=max(each),
        bytes_per_token=int(sum(b * n for b, n in zip(each, copies, strict=True))),
        cache_bytes=sum(
            s.memory_bytes.kv_cache * n
            for s, n in zip(replica.stages, sizes, strict=True)
        ),
    )


def _shards(anatomy: Anatomy, stage: Stage) -> int:
    """GPUs over which a context group cuts the cache of a sequence."""
    return anatomy.shape(stage).kv_shards


def _rank_tokens(anatomy: Anatomy, replica: Replica, stage: Stage) -> int:
    """Room of one attention rank: it has its share of the sequences."""
    mine = ceil_div(replica.operating_point.sequences, stage.shape.attn_dp)
    prompts_only = replica.operating_point.role == "prefill"
    return anatomy.memory.mix.kv_tokens(mine, prompts_only)


def _bytes_per_token(anatomy: Anatomy, stage: Stage) -> int:
    ranks = anatomy.memory.ranks(anatomy.shape(stage))
    precision = anatomy.instance.precision
    return sum(
        count * ranks[kind].kv_bytes_per_token(precision)
        for kind, count in anatomy.memory.kind_counts(*stage.layers).items()
        if not ranks[kind].windowed
    )


def _spare_bytes(anatomy: Anatomy, stage: Stage) -> int:
    return anatomy.usable_bytes(stage) - stage.memory_bytes.total()
