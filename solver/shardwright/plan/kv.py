"""KV cache of a replica: what a token costs, what is reserved, what would fit."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.plan.anatomy import Anatomy
from shardwright.schema.plan import Replica, Stage


@dataclass(frozen=True)
class KvRoom:
    """KV figures of one replica.

    ``bytes_per_token_gpu`` is the largest of its GPUs, ``bytes_per_token`` the sum
    over all of them; layers with a window are left out, as they stop growing.
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
    reserved = anatomy.memory.mix.kv_tokens(replica.operating_point.sequences)
    each = [_bytes_per_token(anatomy, stage) for stage in replica.stages]
    extra = [
        _spare_bytes(anatomy, stage) // per_token
        for stage, per_token in zip(replica.stages, each, strict=True)
        if per_token
    ]
    sizes = [len(stage.gpus) for stage in replica.stages]
    return KvRoom(
        tokens_reserved=reserved,
        tokens_capacity=max(0, reserved + min(extra)) if extra else None,
        bytes_per_token_gpu=max(each),
        bytes_per_token=sum(b * n for b, n in zip(each, sizes, strict=True)),
        cache_bytes=sum(
            s.memory_bytes.kv_cache * n
            for s, n in zip(replica.stages, sizes, strict=True)
        ),
    )


def _bytes_per_token(anatomy: Anatomy, stage: Stage) -> int:
    ranks = anatomy.memory.ranks(stage.shape.tp)
    precision = anatomy.instance.precision
    return sum(
        count * ranks[kind].kv_bytes_per_token(precision)
        for kind, count in anatomy.memory.kind_counts(*stage.layers).items()
        if ranks[kind].window_tokens is None
    )


def _spare_bytes(anatomy: Anatomy, stage: Stage) -> int:
    return anatomy.usable_bytes(stage) - stage.memory_bytes.total()
