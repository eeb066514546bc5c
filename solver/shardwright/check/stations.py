"""Attention and experts on GPUs of their own, in turns (docs/cost-model.md, 11)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.collectives import all_reduce, hidden_bytes
from shardwright.check.experts import balance, expert_seconds
from shardwright.check.layer import expert_overhead, plain_overhead, rank_seconds
from shardwright.check.rates import link_rate, start_up
from shardwright.check.stage import Load, StageView, shard, used_kinds
from shardwright.schema.model import DenseFfn, LayerKind, MoeFfn

Seconds = tuple[Fraction, Fraction]
"""A time, and its part in collectives."""

NOTHING = Fraction(0)


@dataclass(frozen=True)
class Stations:
    """One part of an iteration in one layer, in seconds.

    ``attention`` is T_a, ``reduces`` its part C_a in all-reduces, ``way`` T_w of one
    way between the groups and ``experts`` T_e.
    """

    attention: Fraction = NOTHING
    reduces: Fraction = NOTHING
    way: Fraction = NOTHING
    experts: Fraction = NOTHING

    def computing(self) -> Fraction:
        """T_a − C_a."""
        return self.attention - self.reduces

    def slowest(self) -> Fraction:
        """max(T_a, T_w, T_e)."""
        return max(self.attention, self.way, self.experts)


@dataclass(frozen=True)
class PingPong:
    """One iteration in v ``parts``: the stations of every kind that layers have."""

    parts: int
    stations: dict[str, Stations]

    def layer(self, kind: LayerKind) -> Seconds:
        """t_g, and what it would be shorter by without communication."""
        if kind.attention is None and kind.ffn is None:
            return NOTHING, NOTHING
        own, several = self.stations[kind.name], self.stations.values()
        whole = max(self.parts * own.slowest(), self._round())
        alone = max(station.computing() for station in several)
        alone += max(station.experts for station in several)
        silent = max(self.parts * max(own.computing(), own.experts), alone)
        return whole, whole - silent

    def fill(self) -> Fraction:
        """min((v − 1)·b, S* − b): the parts come one after the other."""
        slowest = max(station.slowest() for station in self.stations.values())
        return min((self.parts - 1) * slowest, self._round() - slowest)

    def _round(self) -> Fraction:
        """S*: once round all stations, each of its slowest kind."""
        several = self.stations.values()
        total = max(station.attention for station in several)
        total += 2 * max(station.way for station in several)
        return total + max(station.experts for station in several)


def ping_pong(view: StageView, load: Load) -> PingPong:
    """The stations of the largest part of an iteration, for every kind in use."""
    parts = view.layout.parts
    part = Load(
        sequences=shard(load.sequences, parts),
        prompt=shard(load.prompt, parts),
        stage_tokens=shard(load.stage_tokens, parts),
        stage_sequences=shard(load.stage_sequences, parts),
    )
    kinds = used_kinds(view.instance.model)
    return PingPong(parts, {kind.name: stations(view, kind, part) for kind in kinds})


def stations(view: StageView, kind: LayerKind, part: Load) -> Stations:
    """T_a, C_a, T_w and T_e of one part in a layer of the kind."""
    if kind.attention is None and kind.ffn is None:
        return Stations()
    message = hidden_bytes(view, part.rank_tokens)
    reduces = _reduces(kind) * all_reduce(view, view.tp, message)
    attention = rank_seconds(view, kind, part) + plain_overhead(view) + reduces
    if not isinstance(kind.ffn, MoeFfn):
        return Stations(attention, reduces)
    experts = expert_seconds(view, kind.ffn, part) + expert_overhead(view)
    return Stations(attention, reduces, way_seconds(view, kind.ffn, part), experts)


def _reduces(kind: LayerKind) -> int:
    """After attention, and after a dense or shared FFN or experts without attention."""
    count = int(kind.attention is not None)
    if isinstance(kind.ffn, DenseFfn):
        return count + 1
    if isinstance(kind.ffn, MoeFfn):
        beside = kind.ffn.shared_intermediate + kind.ffn.dense_intermediate
        return count + int(beside > 0 or kind.attention is None)
    return count


def way_seconds(view: StageView, ffn: MoeFfn, part: Load) -> Fraction:
    """T_w: α(G) + N_v·max(ω·G_e/G_a, min(1, ω·β))·h·a/(B·e_link)."""
    layout = view.layout
    reached = 1 - Fraction(layout.ep - 1, layout.ep) ** ffn.top_k
    leaving = reached * Fraction(layout.expert_gpus, layout.gpus)
    arriving = min(Fraction(1), reached * balance(view, ffn))
    message = hidden_bytes(view, part.stage_tokens * max(leaving, arriving))
    return start_up(view, layout.all_gpus) + message / link_rate(view.spec)
