"""Time of one iteration of a stage, and of hops (docs/cost-model.md, section 4).

Everything is computed in exact fractions of a second and rounded up where the page
rounds, so the only tolerance left is for whoever computed the claim in floats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.collectives import (
    after_experts,
    all_reduce,
    hidden_bytes,
    logit_gather,
)
from shardwright.check.context import attention_exchange, returned
from shardwright.check.exact import (
    RELATIVE_TOLERANCE,
    bytes_per_value,
    us_in_s,
    whole_ns,
)
from shardwright.check.experts import expert_seconds
from shardwright.check.layer import expert_overhead, plain_overhead, rank_seconds
from shardwright.check.rank import attention_of
from shardwright.check.rates import (
    crossing_rate,
    engine_costs,
    hbm_rate,
    joined,
    link_rate,
    matmul_rate,
)
from shardwright.check.stage import Iterations, Load, StageView, vocabulary_shard
from shardwright.check.stations import PingPong, Seconds, ping_pong
from shardwright.schema.cluster import Calibration
from shardwright.schema.instance import Instance
from shardwright.schema.model import LayerKind, MoeFfn


@dataclass(frozen=True)
class StageTime:
    """One iteration of a stage: its time, its share in collectives, the roundings.

    ``terms`` counts the values rounded to whole ns in ``total_ns``,
    ``communication_terms`` those in ``communication_ns``.
    """

    total_ns: int
    communication_ns: int
    terms: int
    communication_terms: int

    def accepts(self, claimed_ns: int) -> bool:
        """True within 1e-9 and 1 ns for each separately rounded term."""
        return abs(claimed_ns - self.total_ns) <= self.allowance_ns()

    def allowance_ns(self) -> Fraction:
        """How far a claim may be off."""
        return self.total_ns * RELATIVE_TOLERANCE + self.terms


def as_measured(claimed_ns: int) -> StageTime:
    """A stage time that comes from measured tables: an input, taken as claimed.

    Its collectives are not told apart, which is why communication_share is refused
    with such times.
    """
    return StageTime(claimed_ns, 0, 0, 0)


def stage_time(view: StageView, iterations: Iterations) -> StageTime:
    """ρ + Σ layers τ_g, means over the iterations, each term rounded up to ns."""
    if not iterations:
        return StageTime(0, 0, 0, 0)
    laws = [(share, _law(view, load)) for share, load in iterations]
    total, communication = _mean_ns((share, law.constant()) for share, law in laws)
    communication_terms = int(communication > 0)
    for name, count in Counter(kind.name for kind in view.kinds).items():
        kind = next(kind for kind in view.kinds if kind.name == name)
        layers = ((share, law.layer(kind)) for share, law in laws)
        layer, layer_communication = _mean_ns(layers)
        total += count * layer
        communication += count * layer_communication
        communication_terms += count * int(layer_communication > 0)
    return StageTime(total, communication, len(view.kinds) + 1, communication_terms)


def constant_seconds(view: StageView, iterations: Iterations) -> Fraction:
    """ρ, the mean over the iterations, before it is rounded."""
    found = Fraction(0)
    for share, load in iterations:
        found += share * _law(view, load).constant()[0]
    return found


def layer_ns(view: StageView, kind: LayerKind, iterations: Iterations) -> int:
    """τ_g, the mean over the iterations, rounded up."""
    found = Fraction(0)
    for share, load in iterations:
        found += share * _law(view, load).layer(kind)[0]
    return whole_ns(found)


@dataclass(frozen=True)
class _Together:
    """An iteration of a stage whose experts lie on the attention GPUs."""

    view: StageView
    load: Load

    def constant(self) -> Seconds:
        return _constant(self.view, self.load)

    def layer(self, kind: LayerKind) -> Seconds:
        return _layer(self.view, kind, self.load)


@dataclass(frozen=True)
class _Apart:
    """An iteration of a stage whose experts have GPUs of their own."""

    view: StageView
    load: Load
    rounds: PingPong

    def constant(self) -> Seconds:
        seconds, communication = _constant(self.view, self.load)
        return seconds + self.rounds.fill(), communication

    def layer(self, kind: LayerKind) -> Seconds:
        return self.rounds.layer(kind)


def _law(view: StageView, load: Load) -> _Together | _Apart:
    if view.layout.apart:
        return _Apart(view, load, ping_pong(view, load))
    return _Together(view, load)


def _mean_ns(parts: Iterable[tuple[Fraction, Seconds]]) -> tuple[int, int]:
    """The mean time and the mean of its collectives, each rounded up."""
    total = communication = Fraction(0)
    for share, (seconds, collective) in parts:
        total += share * seconds
        communication += share * collective
    return whole_ns(total), whole_ns(communication)


def _layer(view: StageView, kind: LayerKind, load: Load) -> Seconds:
    """t_g and its part in collectives."""
    if kind.attention is None and kind.ffn is None:
        return Fraction(0), Fraction(0)
    communication = _layer_communication(view, kind, load)
    seconds = rank_seconds(view, kind, load) + communication
    if isinstance(kind.ffn, MoeFfn):
        seconds += expert_seconds(view, kind.ffn, load) + expert_overhead(view)
    else:
        seconds += plain_overhead(view)
    return seconds, communication


def _layer_communication(view: StageView, kind: LayerKind, load: Load) -> Fraction:
    """After attention, and after the FFN: an all-reduce, or the experts' exchange."""
    reduce = all_reduce(view, view.tp, hidden_bytes(view, load.rank_tokens))
    total = Fraction(0)
    attention = attention_of(view, kind)
    if attention is not None:
        total += reduce + attention_exchange(view, attention, load)
    if isinstance(kind.ffn, MoeFfn):
        return total + after_experts(view, kind.ffn, load)
    return total + reduce if kind.ffn is not None else total


def _constant(view: StageView, load: Load) -> Seconds:
    """r(m, x) and its collective part."""
    costs = engine_costs(view)
    seconds = us_in_s(costs.step_overhead_us)
    seconds += load.sequences * us_in_s(costs.sequence_overhead_us)
    communication = Fraction(0)
    if view.first:
        embedded = hidden_bytes(view, load.rank_tokens)
        seconds += embedded / hbm_rate(view.spec)
        communication += all_reduce(view, view.tp, embedded)
    if view.last:
        rows = load.sequences + load.prompt / view.mix.computed
        seconds += _head(view, rows)
        communication += logit_gather(view, rows) + returned(view, load)
    return seconds + communication, communication


def _head(view: StageView, rows: Fraction) -> Fraction:
    """‖2·h·V_t·R/(F[act]·e_mm[act]·f), h·V_t·a/(BW·e_hbm)‖."""
    model, activations = view.instance.model, view.instance.precision.activations
    weights = model.hidden * vocabulary_shard(model, view.tp)
    compute = 2 * weights * rows / matmul_rate(view, activations)
    read = weights * bytes_per_value(activations) / hbm_rate(view.spec)
    return joined(view, compute, read)


def hop_ns(
    sender: StageView,
    receiver: StageView,
    tokens: int,
    together: bool,
    told: Fraction | None = None,
) -> int:
    """One hop of ``tokens`` tokens: hidden state and residual, rounded up to ns.

    ``told``: bytes/s that the cluster file has between the two, over islands.
    """
    payload = 2 * hidden_bytes(sender, tokens)
    ends = (sender.spec, receiver.spec)
    if together:
        latency = us_in_s(ends[0].calibration.hop_latency_us)
        return whole_ns(latency + payload / link_rate(ends[0]))
    latency = max(_crossing_latency(spec.calibration) for spec in ends)
    rates = [crossing_rate(spec) for spec in ends]
    if told is not None:
        rates.append(told)
    return whole_ns(latency + payload / min(rates))


def return_ns(instance: Instance) -> int:
    """η_r: the largest network latency of the GPU types that nodes have."""
    cluster = instance.cluster
    specs = [cluster.gpu_types[group.gpu] for group in cluster.nodes]
    return max(whole_ns(us_in_s(spec.calibration.network_latency_us)) for spec in specs)


def _crossing_latency(calibration: Calibration) -> Fraction:
    """A hop between islands takes no less than one inside."""
    return max(
        us_in_s(calibration.network_latency_us), us_in_s(calibration.hop_latency_us)
    )
