"""A-counts: the cheapest replica of one operating point by counting (MILP).

For layers of one kind and GPUs of one class a replica is known by how many stages x
and layers y each (unit, role) has: x <= y <= n x, n the most layers that one stage may
hold; times are affine in the layers, T is a bound on n, and S, prefill and
communication are sums over x and y alone. An even split realises every (x, y). The
y are what makes it right: x alone is enough only while no sum is limited. Prices must
not fall with the size of a segment (a segment may hold idle GPUs here), and a hop
between islands must not be quicker than one inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.formulations.milp.arcs import Prices, read_price
from shardwright.formulations.milp.engine import Backend, Limits, run
from shardwright.formulations.milp.rows import Rows, Terms, minimisation
from shardwright.problem import IntArray, Problem
from shardwright.schema.errors import UnsupportedRule

Key = tuple[int, int]
"""Unit and role."""


@dataclass
class _Counting(Rows):
    """The program at one point; ``most`` is n of every unit and role."""

    problem: Problem
    point: int
    prices: Prices
    most: dict[Key, int] = field(default_factory=dict)
    stages: dict[Key, Any] = field(default_factory=dict)
    layers: dict[Key, Any] = field(default_factory=dict)
    segments: dict[int, Any] = field(default_factory=dict)

    def total(self, layer: IntArray, role: IntArray) -> Terms:
        """sum a y + d x: the table over all stages."""
        kind, o = self.problem.layer_kinds[0], self.point
        per_layer = [(y, int(layer[o, u, kind])) for (u, _), y in self.layers.items()]
        per_stage = [(x, int(role[o, u, r])) for (u, r), x in self.stages.items()]
        return [*per_layer, *per_stage]

    def hops(self, intra: IntArray, inter: IntArray) -> tuple[Terms, int]:
        """(#segments - 1) inter + (#stages - #segments) intra, as terms + constant."""
        within, across = int(intra[self.point, 0]), int(inter[self.point, 0, 0])
        terms: Terms = [
            *((x, within) for x in self.stages.values()),
            *((s, across - within) for s in self.segments.values()),
        ]
        return terms, -across


def least_price(
    problem: Problem,
    point: int,
    prices: Prices,
    limits: Limits,
    *,
    tpot_ns: int,
    backend: Backend = "highs",
) -> int | None:
    """min sum pi_z s_z over replicas with TPOT <= tpot_ns; None when there is none."""
    program = build(problem, point, prices, tpot_ns)
    return read_price(run(program.lp, limits, backend))


def require_countable(problem: Problem) -> None:
    """What the counts cannot tell apart is refused."""
    b = problem.bounds
    sizes = sorted({unit.gpus for unit in problem.units})
    nested = all(b % a == 0 for a, b in pairwise(sizes))
    refused = {
        "several kinds of layers": not problem.uniform,
        "several GPU classes": len(problem.classes) != 1,
        "units that do not nest": not nested,
        "imbalance": b.memory_imbalance is not None or b.compute_imbalance is not None,
        "a fixed split": b.split is not None,
        "limits on prefill": (b.prefill_ns, b.ttft_ns, b.e2e_ns) != (None,) * 3,
    }
    for reason, applies in refused.items():
        if applies:
            raise UnsupportedRule("A-counts", reason)


def build(problem: Problem, point: int, prices: Prices, tpot_ns: int) -> _Counting:
    """The program with every rule."""
    require_countable(problem)
    program = _Counting(minimisation("counts"), problem, point, prices)
    declare(program, tpot_ns)
    layers_covered(program)
    roles(program)
    stage_counts(program)
    equal_shape_per_stage(program)
    tpot_limit(program, tpot_ns)
    communication_share(program)
    stage_inside_island(program)
    program.minimise([(s, prices[0, z]) for z, s in program.segments.items()])
    return program


def declare(p: _Counting, tpot_ns: int) -> None:
    """x, y per unit and role; s per segment size."""
    for u in range(len(p.problem.units)):
        for role in (MIDDLE, FIRST, LAST, ONLY):
            p.most[u, role] = _most_layers(p, u, role, tpot_ns)
            p.stages[u, role] = p.integer(f"stages_{u}_{role}", p.problem.layers)
            p.layers[u, role] = p.integer(f"layers_{u}_{role}", p.problem.layers)
    for gpu_class, size in p.prices:
        if gpu_class == 0:
            p.segments[size] = p.integer(f"segments_{size}", p.problem.layers)


def _most_layers(p: _Counting, unit: int, role: int, tpot_ns: int) -> int:
    """n: most layers within memory and floor(TPOT / q), 0 when not one fits."""
    if role != ONLY and p.problem.stands_alone(unit):
        return 0
    t, o, kind = p.problem.tables, p.point, p.problem.layer_kinds[0]
    q = p.problem.points[o].micro_batches
    capacity = p.problem.classes[0].capacity_bytes
    most = p.problem.layers
    limits = [(t.decode_layer, t.decode_role, tpot_ns // q)]
    if p.problem.bounds.memory_fits:
        rows = p.problem.memory_rows
        limits += [(row.layer, row.role, capacity) for row in rows]
    for layer, constant, top in limits:
        each, room = int(layer[o, unit, kind]), top - int(constant[o, unit, role])
        if room < 0:
            return 0
        most = min(most, room // each) if each else most
    return most


def layers_covered(p: _Counting) -> None:
    """x <= y <= n x for every unit and role; sum y = L."""
    for key, x in p.stages.items():
        y = p.layers[key]
        p.at_most([(x, 1), (y, -1)], 0, "at_least_one_layer")
        p.at_most([(y, 1), (x, -p.most[key])], 0, "at_most_n_layers")
    p.equal([(y, 1) for y in p.layers.values()], p.problem.layers, "layers_covered")


def roles(p: _Counting) -> None:
    """One only stage, or one first and one last: x_f = x_l = 1 - x_b; x_m <= L x_f."""
    alone = _of_role(p, ONLY)
    for role in (FIRST, LAST):
        p.equal([*_of_role(p, role), *alone], 1, "roles")
    most = p.problem.layers
    p.at_most([*_of_role(p, MIDDLE), *_of_role(p, ONLY, most)], most, "roles")


def _of_role(p: _Counting, role: int, weight: int = 1) -> Terms:
    return [(x, weight) for (_, r), x in p.stages.items() if r == role]


def stage_counts(p: _Counting) -> None:
    """micro_batches_equal_stages, max_pipeline_stages, fix: p in the point's range."""
    counts = p.problem.stage_counts(p.point)
    p.at_most([(x, 1) for x in p.stages.values()], max(counts, default=0), "most")
    p.at_most([(x, -1) for x in p.stages.values()], -min(counts, default=1), "least")


def equal_shape_per_stage(p: _Counting) -> None:
    """sum x_u <= L w_u, sum_u w_u = 1 (one class: a shape is a unit)."""
    if not p.problem.rules.equal_shape_per_stage:
        return
    units = range(len(p.problem.units))
    chosen = [p.binary(f"shape_{u}") for u in units]
    p.equal([(w, 1) for w in chosen], 1, "equal_shape_per_stage")
    for u, w in enumerate(chosen):
        mine: Terms = [(x, 1) for (unit, _), x in p.stages.items() if unit == u]
        p.at_most([*mine, (w, -p.problem.layers)], 0, "equal_shape_per_stage")


def tpot_limit(p: _Counting, tpot_ns: int) -> None:
    """S = sum (a y + d x) + hops + eta_r [p > 1] <= TPOT; q T is in n."""
    t = p.problem.tables
    hops, constant = p.hops(t.hop_intra, t.hop_inter)
    decode = p.total(t.decode_layer, t.decode_role)
    back = _of_role(p, FIRST, t.return_ns)
    p.whole_at_most([*decode, *hops, *back], tpot_ns - constant, "tpot_limit")


def communication_share(p: _Counting) -> None:
    """comm + hops + eta_r [p > 1] <= phi S."""
    share = p.problem.bounds.communication_share
    if share is None:
        return
    t, rest = p.problem.tables, 1 - float(share)
    hops, constant = p.hops(t.hop_intra, t.hop_inter)
    sums = [
        *p.total(t.comm_layer, t.comm_role),
        *((v, -float(share) * w) for v, w in p.total(t.decode_layer, t.decode_role)),
        *((v, rest * w) for v, w in (*hops, *_of_role(p, FIRST, t.return_ns))),
    ]
    slack = 1 / (2 * share.denominator)
    p.at_most(sums, slack - rest * constant, "communication_share")


def stage_inside_island(p: _Counting) -> None:
    """Nested packing: sum_{t' >= t} (t'/t) x_{t'} <= sum_z floor(z/t) s_z for every t;
    every segment holds a stage: sum s <= sum x. One segment at least."""
    units = p.problem.units
    for t in sorted({u.gpus for u in units}):
        need: Terms = [
            (x, units[u].gpus // t)
            for (u, _), x in p.stages.items()
            if units[u].gpus >= t
        ]
        room: Terms = [(s, -(z // t)) for z, s in p.segments.items()]
        p.at_most([*need, *room], 0, "stage_inside_island")
    each: Terms = [(s, 1) for s in p.segments.values()]
    p.at_most([*each, *((x, -1) for x in p.stages.values())], 0, "no_empty_segment")
    p.at_most([(s, -1) for s in p.segments.values()], -1, "one_segment")
