"""Collectives of layers with experts or context groups, each by its own name.

Attention is reduced over tp, and put together over a context group; tokens then reach
the experts by an all-reduce (one attention rank), an all-gather and reduce-scatter
(ep 1), or dispatch and combine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from shardwright.cost.latencies import StageTimes
from shardwright.cost.links import Links
from shardwright.cost.rank import ExpertRank, RankLayer
from shardwright.cost.times import FloatArray, StageClock
from shardwright.cost.times import Load as ClockLoad
from shardwright.plan.anatomy import Anatomy, Load, link_speed, network_speed
from shardwright.plan.transfers import Exchange, Operation, Transfer
from shardwright.schema.plan import Stage


@dataclass(frozen=True)
class _Piece:
    """A transfer of one layer; bytes that one GPU sends (or reduces)."""

    operation: Operation
    what: str
    size_bytes: float
    seconds: float

    @property
    def key(self) -> tuple[Operation, str]:
        return self.operation, self.what


def expert_rows(
    anatomy: Anatomy, index: int, stage: Stage, loads: tuple[Load, Load]
) -> Iterator[Exchange]:
    """Rows of the stage's layers, in the order of a layer."""
    decode, prefill = (_transfers(anatomy, stage, load) for load in loads)
    gpu = anatomy.gpu(stage)
    for key in decode:
        across = key[0] == "across islands"
        link = "network" if across else gpu.link_technology
        speed = network_speed([gpu]) if across else link_speed(gpu)
        yield Exchange(index, *key, link, speed, decode[key], prefill[key])


def _transfers(
    anatomy: Anatomy, stage: Stage, load: Load
) -> dict[tuple[Operation, str], Transfer]:
    """Transfers of all layers, by name; sizes are those of the largest layer."""
    shape = anatomy.shape(stage)
    clock, on = anatomy.clock(stage), load.on(shape)
    links = Links(anatomy.gpu(stage), shape)
    width = anatomy.instance.model.hidden * anatomy.activation_value_bytes
    found: dict[tuple[Operation, str], list[tuple[int, float, int]]] = {}
    for kind, count in sorted(anatomy.memory.kind_counts(*stage.layers).items()):
        rank = anatomy.memory.ranks(shape)[kind]
        pieces = _mean_pieces(_Layer(links, rank, width, clock), on)
        whole = int(clock.layer(rank, on)[1][0])
        for piece, ns in zip(pieces, _shares(pieces, whole), strict=True):
            found.setdefault(piece.key, []).append((count, piece.size_bytes, ns))
    return {key: _sum(parts) for key, parts in found.items()}


def _sum(parts: list[tuple[int, float, int]]) -> Transfer:
    count = sum(n for n, _, _ in parts)
    total = sum(n * ns for n, _, ns in parts)
    return Transfer(count, ceil(max(b for _, b, _ in parts)), total // count, total)


def _shares(pieces: list[_Piece], whole_ns: int) -> list[int]:
    """Whole nanoseconds of each piece that add up to the layer's, rounded up once.

    Where the layer's time is measured, the pieces share it as the cost model would.
    """
    ends = np.ceil(_scaled(pieces, whole_ns)).astype(np.int64)
    ends[-1:] = whole_ns
    return [int(n) for n in np.diff(np.minimum(ends, whole_ns), prepend=0)]


def _scaled(pieces: list[_Piece], whole_ns: int) -> FloatArray:
    """Ends of the pieces, ns; as they are where they make the whole."""
    seconds = np.array([p.seconds for p in pieces], dtype=np.float64)
    ends: FloatArray = np.cumsum(seconds) * 1e9
    if ends.size == 0 or abs(ends[-1] - whole_ns) <= 1 or ends[-1] == 0:
        return ends
    return np.asarray(ends * (whole_ns / ends[-1]), dtype=np.float64)


@dataclass(frozen=True)
class _Layer:
    """A layer kind on one GPU; ``width`` is a hidden state, bytes."""

    links: Links
    rank: RankLayer
    width: int
    clock: StageTimes


def _mean_pieces(layer: _Layer, load: ClockLoad) -> list[_Piece]:
    """Means over the iterations with and without prompts."""
    full = list(_pieces(layer, load))
    if load.share is None:
        return full
    alone, share = _pieces(layer, load.without_prompts), load.share[0]
    return [
        replace(
            a,
            size_bytes=float(b.size_bytes + share * (a.size_bytes - b.size_bytes)),
            seconds=float(b.seconds + share * (a.seconds - b.seconds)),
        )
        for a, b in zip(full, alone, strict=True)
    ]


def _pieces(layer: _Layer, load: ClockLoad) -> Iterator[_Piece]:
    """Transfers of one layer of a kind."""
    links, rank, width = layer.links, layer.rank, layer.width
    tp, reduced = links.shape.tp, load.rank_tokens(links.shape.cp) * width
    time = float(links.all_reduce(reduced, tp)[0])
    if rank.attention is not None and tp > 1:
        yield _Piece("all-reduce", "attention", float(reduced[0]), time)
    if rank.attention is not None and links.shape.cp > 1:
        assert isinstance(layer.clock, StageClock), "measured without context groups"
        yield from _context(layer.clock, rank, load)
    if rank.experts is not None and links.shape.ranks_per_copy > 1:
        yield from _exchange(links, rank.experts, load, width)
    elif rank.has_ffn and tp > 1:
        what = "dense FFN" if rank.experts is None else "experts"
        yield _Piece("all-reduce", what, float(reduced[0]), time)


def _context(clock: StageClock, rank: RankLayer, load: ClockLoad) -> Iterator[_Piece]:
    """Keys and values of prompts, partial results of decoding."""
    cp = clock.shape.cp
    size = float(clock.gathered_bytes(rank, load)[0])
    time = float(clock.gathered_s(rank, load)[0])
    yield _Piece("all-gather", "prompt KV", size, time)
    if clock.shape.kv_shards > 1:
        sums, outputs = clock.merged_bytes(rank, load)
        whole = float(clock.merged_s(rank, load)[0])
        last = float(clock.links.all_reduce(outputs, cp)[0]) if whole else 0.0
        yield _Piece("all-gather", "log-sums", float(sums[0]), whole - last)
        yield _Piece("all-reduce", "partials", float(outputs[0]), last)


def _exchange(
    links: Links, experts: ExpertRank, load: ClockLoad, width: int
) -> Iterator[_Piece]:
    """How tokens of several attention ranks reach the experts and return."""
    shape = links.shape
    everything = load.rows(shape) * width
    if shape.ep == 1:
        time = float(links.all_gather(everything, shape.ranks_per_copy)[0])
        yield _Piece("all-gather", "tokens", float(everything[0]), time)
        yield _Piece("reduce-scatter", "", float(everything[0]), time)
        return
    sent = everything / (shape.moe_tp * shape.ep)
    time = float(links.one_way(sent, experts)[0])
    size = float(sent[0])
    for way in ("dispatch", "combine"):
        yield _Piece("all-to-all", way, size * links.copies_inside(experts), time)
        if shape.islands > 1:
            across = size * links.copies_across(experts)
            yield _Piece("across islands", way, across, 0.0)
    if shape.moe_tp > 1:
        partial = everything / shape.ep
        time = float(links.all_reduce(partial, shape.moe_tp)[0])
        yield _Piece("all-reduce", "experts", float(partial[0]), time)
