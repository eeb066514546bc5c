"""Inside a disaggregated stage: its stations per layer, and what moves between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from shardwright.cost.disaggregated import DisaggregatedClock
from shardwright.cost.rank import RankLayer
from shardwright.cost.times import FloatArray, mean_ns, to_ns
from shardwright.cost.times import Load as ClockLoad
from shardwright.plan.anatomy import Anatomy, Load, link_speed
from shardwright.plan.transfers import Exchange, Operation, Transfer
from shardwright.schema.plan import Stage

Made = dict[tuple[Operation, str], Transfer]


@dataclass(frozen=True)
class Stations:
    """One part of an iteration in the layers of one kind, ns.

    ``share`` is how many of the balanced iterations are like it: those with prompts, or
    those without. ``period_ns`` is what all ``parts`` take per layer;
    ``attention_busy`` and ``experts_busy`` are the shares of it in which the GPUs of
    either sort work.
    """

    kind: str
    layers: int
    share: float
    parts: int
    attention_ns: int
    dispatch_ns: int
    experts_ns: int
    combine_ns: int
    period_ns: int

    @property
    def attention_busy(self) -> float:
        """Share of the period."""
        return self.parts * self.attention_ns / self.period_ns if self.period_ns else 0

    @property
    def experts_busy(self) -> float:
        """Share of the period."""
        return self.parts * self.experts_ns / self.period_ns if self.period_ns else 0

    @property
    def binds(self) -> str:
        """What the period is: the busiest station's parts, or one part's way round."""
        times = {
            "attention": self.attention_ns,
            "dispatch": self.dispatch_ns,
            "experts": self.experts_ns,
            "combine": self.combine_ns,
        }
        slowest = max(times, key=lambda name: times[name])
        short = self.period_ns - self.parts * times[slowest]
        return slowest if short <= 0 else "way round"


def stations(anatomy: Anatomy, stage: Stage, load: Load) -> list[Stations]:
    """The stage's layer kinds, in iterations without prompts and with them.

    Empty unless the stage is disaggregated.
    """
    clock = anatomy.clock(stage)
    if not isinstance(clock, DisaggregatedClock):
        return []
    parts, names = clock.shape.ping_pong, anatomy.instance.model.layer_kinds
    found = []
    for kind, count in sorted(anatomy.memory.kind_counts(*stage.layers).items()):
        rank = anatomy.ranks(stage)[kind]
        for share, one in _iterations(load.on(clock.shape)):
            turn, period = clock.turn(rank, one), clock.layer(rank, one)[0]
            times = (turn.attention, turn.dispatch, turn.experts, turn.combine)
            attention, out, experts, back = (int(to_ns(x)[0]) for x in times)
            found.append(
                Stations(
                    names[kind].name,
                    count,
                    share,
                    parts,
                    attention,
                    out,
                    experts,
                    back,
                    int(period[0]),
                )
            )
    return found


def _iterations(load: ClockLoad) -> list[tuple[float, ClockLoad]]:
    """The iterations that a load is the mean of, with their shares."""
    share = 1.0 if load.share is None else float(load.share[0])
    both = ((1 - share, load.without_prompts), (share, replace(load, share=None)))
    return [(part, one) for part, one in both if part > 0]


def apart_rows(
    anatomy: Anatomy, index: int, stage: Stage, loads: tuple[Load, Load]
) -> Iterator[Exchange]:
    """Collectives of a disaggregated stage's layers, part by part.

    Dispatch and combine run beside computation: their times are in no sum.
    """
    decode, prefill = (_made(anatomy, stage, load) for load in loads)
    gpu = anatomy.gpu(stage)
    for key in decode:
        link, speed = gpu.link_technology, link_speed(gpu)
        yield Exchange(index, *key, link, speed, decode[key], prefill[key])


def _made(anatomy: Anatomy, stage: Stage, load: Load) -> Made:
    clock = anatomy.clock(stage)
    assert isinstance(clock, DisaggregatedClock)
    found: Made = {}
    for kind, count in sorted(anatomy.memory.kind_counts(*stage.layers).items()):
        rank = anatomy.ranks(stage)[kind]
        times = count * clock.shape.ping_pong
        for key, size, each in _pieces(anatomy, clock, rank, load.on(clock.shape)):
            before = found.get(key)
            made = Transfer(times, size, each, times * each)
            found[key] = made if before is None else _sum(before, made)
    return found


def _sum(a: Transfer, b: Transfer) -> Transfer:
    count, total = a.count + b.count, a.total_ns + b.total_ns
    size = max(a.bytes_each or 0, b.bytes_each or 0)
    return Transfer(count, size, total // count, total)


def _pieces(
    anatomy: Anatomy,
    clock: DisaggregatedClock,
    rank: RankLayer,
    on: ClockLoad,
) -> Iterator[tuple[tuple[Operation, str], int, int]]:
    """(transfer, bytes, ns) of one part in one layer; bytes where it has prompts."""

    def seconds(load: ClockLoad) -> tuple[FloatArray, FloatArray]:
        turn = clock.turn(rank, load)
        return turn.collectives, turn.dispatch

    part = clock.part(on)
    reduced, way = (int(ns[0]) for ns in mean_ns(seconds, on))
    width = anatomy.instance.model.hidden * anatomy.activation_value_bytes
    if reduced:
        size = int(part.rank_tokens(1)[0]) * width
        yield ("all-reduce", "attention GPUs"), size, reduced
    if rank.experts is not None:
        size = ceil(float(clock.largest_message(rank, part.tokens)[0]))
        yield ("all-to-all", "dispatch"), size, way
        yield ("all-to-all", "combine"), size, way
