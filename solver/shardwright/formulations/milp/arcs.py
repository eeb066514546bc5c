"""A-arcs: the cheapest replica of one operating point, as a path (MILP).

Nodes are (boundary, class, GPUs used in the open segment). A stage moves along layers
and fills its segment; at a boundary the segment goes on or closes, and what closes is
paid for by its class and size. All arcs i -> j exist, never only the furthest: with
units A (1 ms a layer, at most 10, the only one with room for the head), A and B (3 ms,
at most 10) and 22 layers, furthest arcs give 42 ms where 26 are possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shardwright.formulations.milp.engine import Backend, EngineRun, Limits, run
from shardwright.formulations.milp.rows import Rows, Terms, minimisation
from shardwright.formulations.ranges import Cube, StageTables
from shardwright.problem import Problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.result import Status

Prices = Mapping[tuple[int, int], int]
"""Price of a segment by (class, GPUs); a size without a price cannot be had."""


class Step(NamedTuple):
    """A stage on layers [start, end), begun with ``used`` GPUs in its segment."""

    start: int
    end: int
    unit: int
    used: int


class Turn(NamedTuple):
    """At a boundary: the segment of ``used`` GPUs of a class closes, and one of class
    ``onward`` opens; ``stays`` when it goes on instead."""

    boundary: int
    gpu_class: int
    used: int
    onward: int
    stays: bool


@dataclass
class _Pricing(Rows):
    """The program at one point."""

    problem: Problem
    tables: StageTables
    point: int
    prices: Prices
    tpot_ns: int | None
    steps: dict[Step, Any] = field(default_factory=dict)
    turns: dict[Turn, Any] = field(default_factory=dict)

    def declare(self) -> None:
        """Steps that keep the rules of a stage, turns between them."""
        largest: dict[int, int] = {}
        for gpu_class, size in self.prices:
            largest[gpu_class] = max(size, largest.get(gpu_class, 0))
        for u, unit in enumerate(self.problem.units):
            for used in range(largest.get(unit.gpu_class, 0) - unit.gpus + 1):
                for i in range(self.problem.layers):
                    for j in range(i + 1, self.problem.layers + 1):
                        if self._allowed(u, i, j):
                            name = f"step_{i}_{j}_{u}_{used}"
                            self.steps[Step(i, j, u, used)] = self.binary(name)
        for boundary in range(1, self.problem.layers):
            for gpu_class, top in largest.items():
                for used in range(1, top + 1):
                    self._declare_turns(boundary, gpu_class, used, list(largest))

    def _declare_turns(
        self, boundary: int, gpu_class: int, used: int, classes: list[int]
    ) -> None:
        turns = [Turn(boundary, gpu_class, used, gpu_class, True)]
        if (gpu_class, used) in self.prices:
            turns += [Turn(boundary, gpu_class, used, k, False) for k in classes]
        for turn in turns:
            self.turns[turn] = self.number("turn_" + "_".join(map(str, turn)), 1)

    def _allowed(self, unit: int, start: int, end: int) -> bool:
        decode = self.tables.decode[self.point][unit][start][end]
        q = self.problem.points[self.point].micro_batches
        return self.tables.allowed(self.point, unit, start, end) and (
            self.tpot_ns is None or q * decode <= self.tpot_ns
        )

    def after(self, step: Step) -> int:
        """GPUs in the segment when the stage is placed."""
        return step.used + self.problem.units[step.unit].gpus

    def gpu_class(self, step: Step) -> int:
        """Class of the stage."""
        return self.problem.units[step.unit].gpu_class

    def covering(self, layer: int) -> list[tuple[Step, Any]]:
        """Stages that hold a layer."""
        return [(s, x) for s, x in self.steps.items() if s.start <= layer < s.end]

    def ceiling(self, table: Cube, times: int, hop: int) -> int:
        """Above the sum over any path, and above ``times`` the largest entry."""
        here, layers = table[self.point], self.problem.layers
        most = max((here[s.unit][s.start][s.end] for s in self.steps), default=0)
        return (layers + times) * most + layers * hop

    def column(self, table: Cube, pairs: list[tuple[Step, Any]], factor: int) -> Terms:
        """factor times the table, summed over stages."""
        here = table[self.point]
        return [(x, factor * here[s.unit][s.start][s.end]) for s, x in pairs]


def least_price(
    problem: Problem,
    point: int,
    prices: Prices,
    limits: Limits,
    *,
    tpot_ns: int | None = None,
    backend: Backend = "highs",
) -> int | None:
    """min sum pi_{k,z} over the segments of a replica with TPOT <= tpot_ns that keeps
    the rules of its point; None when there is none."""
    program = build(problem, point, prices, tpot_ns)
    found = run(program.lp, limits, backend)
    return read_price(found)


def read_price(found: EngineRun) -> int | None:
    """The proven price; None when there is none; an error without a proof."""
    if found.status is Status.INFEASIBLE:
        return None
    if found.status is not Status.OPTIMAL or found.objective is None:
        raise TimeoutError("the pricing program was not proven in time")
    return round(found.objective)


def build(
    problem: Problem, point: int, prices: Prices, tpot_ns: int | None
) -> _Pricing:
    """The program with every rule of one replica (balance needs a composition)."""
    b = problem.bounds
    if b.memory_imbalance is not None or b.compute_imbalance is not None:
        raise UnsupportedRule("A-arcs", "imbalance")
    if any(unit.shape.disaggregated for unit in problem.units):
        raise UnsupportedRule("A-arcs", "disaggregated units at prices")
    caps = [x for x in (tpot_ns, b.tpot_ns) if x is not None]
    cap = min(caps) if caps else None
    program = _Pricing(
        minimisation("arcs"), problem, StageTables(problem), point, prices, cap
    )
    program.declare()
    layers_covered(program)
    segments(program)
    stage_counts(program)
    equal_shape_per_stage(program)
    latency(program)
    communication_share(program)
    price(program)
    return program


def layers_covered(p: _Pricing) -> None:
    """sum of x over the stages that hold layer l = 1, for every layer."""
    for layer in range(p.problem.layers):
        p.equal([(x, 1) for _, x in p.covering(layer)], 1, "layers_covered")


def segments(p: _Pricing) -> None:
    """What ends at (boundary, class, used) turns there; what starts at (boundary,
    class, used > 0) stayed, and what starts at (boundary, class, 0) was opened."""
    for boundary in range(1, p.problem.layers):
        nodes = sorted({(t.gpu_class, t.used) for t in p.turns})
        for k, used in nodes:
            ends: Terms = [
                (x, 1)
                for s, x in p.steps.items()
                if (s.end, p.gpu_class(s), p.after(s)) == (boundary, k, used)
            ]
            leave = _turns(p, lambda t, n=(boundary, k, used): t[:3] == n)
            p.equal([*ends, *leave], 0, "turn")
            stay = _turns(p, lambda t, n=(boundary, k, used): t[:3] == n and t.stays)
            p.equal([*_starts(p, boundary, k, used), *stay], 0, "stay")
        for k in sorted({k for k, _ in nodes}):
            opened = _turns(
                p,
                lambda t, b=boundary, k=k: (
                    t.boundary == b and t.onward == k and not t.stays
                ),
            )
            p.equal([*_starts(p, boundary, k, 0), *opened], 0, "open")
    p.equal([(x, 1) for s, x in p.steps.items() if s.start == 0 < s.used], 0, "empty")


def _turns(p: _Pricing, which: Any) -> Terms:
    return [(x, -1) for t, x in p.turns.items() if which(t)]


def _starts(p: _Pricing, boundary: int, gpu_class: int, used: int) -> Terms:
    here = (boundary, gpu_class, used)
    return [
        (x, 1) for s, x in p.steps.items() if (s.start, p.gpu_class(s), s.used) == here
    ]


def stage_counts(p: _Pricing) -> None:
    """micro_batches_equal_stages, max_pipeline_stages, fix: p in the point's range."""
    counts = p.problem.stage_counts(p.point)
    every: Terms = [(x, 1) for x in p.steps.values()]
    p.at_most(every, max(counts, default=0), "most_stages")
    p.at_most([(x, -1) for x in p.steps.values()], -min(counts, default=1), "least")


def equal_shape_per_stage(p: _Pricing) -> None:
    """sum of x of shape t over the stages that hold layer l = y_t; sum_t y_t = 1."""
    if not p.problem.rules.equal_shape_per_stage:
        return
    units = p.problem.units
    kinds = sorted({u.shape for u in units})
    shapes = {s: p.binary(f"shape_{i}") for i, s in enumerate(kinds)}
    p.equal([(y, 1) for y in shapes.values()], 1, "equal_shape_per_stage")
    for layer in range(p.problem.layers):
        for shape, y in shapes.items():
            same = [
                (x, 1.0) for s, x in p.covering(layer) if units[s.unit].shape == shape
            ]
            p.equal([*same, (y, -1)], 0, "equal_shape_per_stage")


def latency(p: _Pricing) -> None:
    """TPOT >= q T, TPOT >= S, the TPOT limit; prefill, TTFT and end-to-end limits."""
    point, t, b = p.problem.points[p.point], p.problem.tables, p.problem.bounds
    q, every = point.micro_batches, list(p.steps.items())
    hop = int(max(t.hop_inter.max(), t.hop_intra.max()))
    top = p.ceiling(p.tables.decode, q, hop) + t.return_ns
    tpot = p.number("tpot", top if p.tpot_ns is None else p.tpot_ns + 0.5)
    for layer in range(p.problem.layers):
        row = p.column(p.tables.decode, p.covering(layer), q)
        p.at_most([*row, (tpot, -1)], 0, "bottleneck")
    loop = [*p.column(p.tables.decode, every, 1), *round_trip(p)]
    p.at_most([*loop, (tpot, -1)], 0, "loop")
    hop = int(max(t.prefill_hop_inter.max(), t.prefill_hop_intra.max()))
    late = p.ceiling(p.tables.prefill, point.chunk_count, hop)
    longest, prefill = p.number("longest", late), p.number("prefill", late)
    wait = p.integer("wait", top)
    for layer in range(p.problem.layers):
        row = p.column(p.tables.prefill, p.covering(layer), 1)
        p.at_most([*row, (longest, -1)], 0, "longest_prefill")
    hops = _hops(p, t.prefill_hop_intra, t.prefill_hop_inter)
    total = [*p.column(p.tables.prefill, every, 1), *hops]
    repeats = point.chunk_count - 1
    p.at_most([*total, (longest, repeats), (prefill, -1)], 0, "prefill_latency")
    p.at_most([(tpot, 1 / (2 * q)), (wait, -1)], 1 / (8 * q), "wait")
    if b.prefill_ns is not None:
        p.whole_at_most([(prefill, 1)], b.prefill_ns, "prefill_limit")
    if b.ttft_ns is not None:
        p.whole_at_most([(wait, 1), (prefill, 1)], b.ttft_ns, "ttft_limit")
    if b.e2e_ns is not None:
        rest = p.problem.output_mean - 1
        row = [(tpot, float(rest)), (wait, 1), (prefill, 1)]
        p.at_most(row, b.e2e_ns + 1 / (2 * rest.denominator), "e2e_limit")


def round_trip(p: _Pricing) -> Terms:
    """sum eta over the turns + eta_r [p > 1]; p > 1 when a first stage ends early."""
    t = p.problem.tables
    early = [
        (x, t.return_ns)
        for s, x in p.steps.items()
        if s.start == 0 and s.end < p.problem.layers
    ]
    return [*_hops(p, t.hop_intra, t.hop_inter), *early]


def _hops(p: _Pricing, intra: Any, inter: Any) -> Terms:
    return [
        (
            x,
            int(
                intra[p.point, t.gpu_class]
                if t.stays
                else inter[p.point, t.gpu_class, t.onward]
            ),
        )
        for t, x in p.turns.items()
    ]


def communication_share(p: _Pricing) -> None:
    """sum (comm - phi tau) x + (1 - phi) (hops + eta_r [p > 1]) <= 0."""
    share = p.problem.bounds.communication_share
    if share is None:
        return
    every = list(p.steps.items())
    comm = p.column(p.tables.comm, every, 1)
    tau = [(x, -float(share) * w) for x, w in p.column(p.tables.decode, every, 1)]
    hops = [(x, (1 - float(share)) * w) for x, w in round_trip(p)]
    slack = 1 / (2 * share.denominator)
    p.at_most([*comm, *tau, *hops], slack, "communication_share")


def price(p: _Pricing) -> None:
    """min sum of pi over the segments that close, the last one at layer L."""
    closed: list[tuple[Any, float]] = [
        (x, p.prices[t.gpu_class, t.used]) for t, x in p.turns.items() if not t.stays
    ]
    for s, x in p.steps.items():
        if s.end == p.problem.layers:
            key = (p.gpu_class(s), p.after(s))
            if key in p.prices:
                closed.append((x, p.prices[key]))
            else:
                p.equal([(x, 1)], 0, "no_such_segment")
    p.minimise(closed)
