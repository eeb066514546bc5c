"""A-arcs: one replica as a path of arcs (layers i to j on a unit of a part).

Any tables and any kinds of layers, every rule of a replica. Parts are places that a
replica can be on; a hop between two parts leaves the island. With ``counts`` the units
of every part are given (least TPOT of a composition); with ``prices`` they are free
and the cheapest replica within the limits is sought (pricing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.problem import (
    Design,
    IntArray,
    Problem,
    StageChoice,
    crossings_of,
)
from shardwright.schema.errors import UnsupportedRule

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

    from shardwright.formulations.cpsat.engine import EngineRun

Option = tuple[int, int]
"""A part and a unit of its class."""


@dataclass(frozen=True)
class Arc:
    """Layers [start, end) on one unit of one part; costs in ns and bytes.

    ``memory_bytes`` is of its fullest GPU, ``all_bytes`` of all its GPUs together.
    """

    start: int
    end: int
    part: int
    unit: int
    decode_ns: int
    prefill_ns: int
    comm_ns: int
    memory_bytes: int
    all_bytes: int


@dataclass(frozen=True)
class ReplicaArcs:
    """The pricing or least-TPOT program of one operating point.

    ``part_classes[a]`` is the GPU class of part a; ``options`` the (part, unit) pairs
    that may be used; ``stages`` the number of stages when it is fixed.
    """

    problem: Problem
    point: int
    part_classes: tuple[int, ...]
    options: tuple[Option, ...]
    stages: int | None = None
    counts: Mapping[Option, int] | None = None
    prices: tuple[int, ...] | None = None
    tpot_cap_ns: int | None = None

    def _sum(self, layer: IntArray, role: IntArray, u: int, i: int, j: int) -> int:
        r = _role(i, j, self.problem.layers)
        return self.problem.stage_sum(layer, role, self.point, StageChoice(u, i, j), r)

    def arcs(self) -> list[Arc]:
        """Arcs that fit memory and the TPOT cap: all i < j, never only the furthest."""
        t = self.problem.tables
        cap = self._tpot_cap()
        q = self.problem.points[self.point].micro_batches
        found = []
        for part, unit in self.options:
            k = self.problem.classes[self.problem.units[unit].gpu_class]
            for i, j in self._intervals():
                if not self.problem.may_hold(unit, i, j):
                    continue
                arc = Arc(
                    i,
                    j,
                    part,
                    unit,
                    self._sum(t.decode_layer, t.decode_role, unit, i, j),
                    self._sum(t.prefill_layer, t.prefill_role, unit, i, j),
                    self._sum(t.comm_layer, t.comm_role, unit, i, j),
                    *self._memory(unit, i, j),
                )
                heavy = self.problem.bounds.memory_fits and (
                    arc.memory_bytes > k.capacity_bytes
                )
                if not heavy and (cap is None or q * arc.decode_ns <= cap):
                    found.append(arc)
        return found

    def _memory(self, unit: int, i: int, j: int) -> tuple[int, int]:
        """Bytes of the fullest GPU of a stage, and of all its GPUs."""
        rows = self.problem.memory_rows
        held = [(self._sum(r.layer, r.role, unit, i, j), r.gpus[unit]) for r in rows]
        return max(x for x, _ in held), sum(x * n for x, n in held)

    def _intervals(self) -> list[tuple[int, int]]:
        """All i < j; with fix.layers only the stages of that split."""
        layers, split = self.problem.layers, self.problem.bounds.split
        if split is None:
            return [(i, j) for i in range(layers) for j in range(i + 1, layers + 1)]
        if sum(split) != layers:
            return []
        return list(pairwise(accumulate(split, initial=0)))

    def _tpot_cap(self) -> int | None:
        caps = [self.tpot_cap_ns, self.problem.tpot_limit_ns(self.point)]
        given = [c for c in caps if c is not None]
        return min(given) if given else None

    def build(self) -> tuple[CpModel, dict[str, Any]]:
        """The model and its variables: least TPOT, or least price with prices."""
        from ortools.sat.python import cp_model

        model = cp_model.CpModel()
        arcs = self.arcs()
        x = [model.new_bool_var(f"x{n}") for n in range(len(arcs))]
        v: dict[str, Any] = {"arcs": arcs, "x": x}
        v["hops"] = self._path(model, arcs, x)
        self._unit_counts(model, arcs, x)
        self._times(model, arcs, x, v)
        self._latency(model, v)
        self._balance(model, arcs, x, v)
        if self.prices is None:
            model.minimize(v["tpot"])
        else:
            model.minimize(_dot(x, [self._price(a) for a in arcs]))
        return model, v

    def _price(self, arc: Arc) -> int:
        assert self.prices is not None
        unit = self.problem.units[arc.unit]
        return self.prices[unit.gpu_class] * unit.gpus

    def _path(self, model: CpModel, arcs: list[Arc], x: list[Any]) -> dict[Any, Any]:
        """layers_covered: one path 0..L; at a boundary a hop joins two arcs."""
        layers, parts = self.problem.layers, range(len(self.part_classes))
        into: dict[tuple[int, int], list[Any]] = {}
        out: dict[tuple[int, int], list[Any]] = {}
        for arc, var in zip(arcs, x, strict=True):
            out.setdefault((arc.start, arc.part), []).append(var)
            into.setdefault((arc.end, arc.part), []).append(var)
        model.add_exactly_one([v for a in parts for v in out.get((0, a), [])])
        model.add_exactly_one([v for a in parts for v in into.get((layers, a), [])])
        hops: dict[tuple[int, int, int], Any] = {}
        for i in range(1, layers):
            for a in parts:
                for b in parts:
                    if into.get((i, a)) and out.get((i, b)):
                        hops[i, a, b] = model.new_bool_var(f"h{i}_{a}_{b}")
            for a in parts:
                leaving = [hops[i, a, b] for b in parts if (i, a, b) in hops]
                arriving = [hops[i, b, a] for b in parts if (i, b, a) in hops]
                model.add(sum(into.get((i, a), [])) == sum(leaving))
                model.add(sum(out.get((i, a), [])) == sum(arriving))
        return hops

    def _unit_counts(self, model: CpModel, arcs: list[Arc], x: list[Any]) -> None:
        """sum of arcs of an option = its count; number of stages p."""
        if self.counts is not None:
            for option, count in self.counts.items():
                chosen = [
                    var
                    for arc, var in zip(arcs, x, strict=True)
                    if (arc.part, arc.unit) == option
                ]
                model.add(sum(chosen) == count)
        if self.stages is not None:
            model.add(sum(x) == self.stages)
        if self.counts is None:
            if self.problem.rules.equal_shape_per_stage:
                self._equal_shape(model, arcs, x)
            elif any(unit.shape.disaggregated for unit in self.problem.units):
                raise UnsupportedRule("A-arcs", "disaggregated units at prices")

    def _equal_shape(self, model: CpModel, arcs: list[Arc], x: list[Any]) -> None:
        """equal_shape_per_stage: x_arc <= z_tp, sum of z = 1."""
        units = self.problem.units
        shapes = sorted({units[u].shape for _, u in self.options})
        z = {s: model.new_bool_var(f"z{i}") for i, s in enumerate(shapes)}
        model.add_exactly_one(z.values())
        for arc, var in zip(arcs, x, strict=True):
            model.add_implication(var, z[units[arc.unit].shape])

    def _times(
        self, model: CpModel, arcs: list[Arc], x: list[Any], v: dict[str, Any]
    ) -> None:
        """T >= tau_arc x_arc; S = sum tau + hops + return; TPOT >= qT, TPOT >= S."""
        t, o = self.problem.tables, self.point
        top = sum(sorted((a.decode_ns for a in arcs), reverse=True)[: self._most()])
        q = self.problem.points[o].micro_batches
        v["bottleneck"] = model.new_int_var(0, max(top, 1), "T")
        for arc, var in zip(arcs, x, strict=True):
            model.add(v["bottleneck"] >= arc.decode_ns * var)
        hops = v["hops"]
        hop_ns = [self._hop(t.hop_intra, t.hop_inter, key) for key in hops]
        decode = _dot(x, [a.decode_ns for a in arcs])
        hop = _dot(list(hops.values()), hop_ns)
        most_hop = self._most() * max(hop_ns, default=0)
        alone = [
            var
            for arc, var in zip(arcs, x, strict=True)
            if _role(arc.start, arc.end, self.problem.layers) == ONLY
        ]
        piped = 1 - sum(alone)
        v["loop"] = decode + hop + t.return_ns * piped
        v["hop"] = hop + t.return_ns * piped
        bound = max(q * top, top + most_hop + t.return_ns)
        cap = self._tpot_cap()
        v["tpot"] = model.new_int_var(1, min(bound, cap or bound), "tpot")
        model.add(v["tpot"] >= q * v["bottleneck"])
        model.add(v["tpot"] >= v["loop"])
        prefill_ns = [
            self._hop(t.prefill_hop_intra, t.prefill_hop_inter, key) for key in hops
        ]
        v["prefill_sum"] = _dot(x, [a.prefill_ns for a in arcs]) + _dot(
            list(hops.values()), prefill_ns
        )
        v["largest_prefill"] = model.new_int_var(
            0, max((a.prefill_ns for a in arcs), default=0), "sigma"
        )
        for arc, var in zip(arcs, x, strict=True):
            model.add(v["largest_prefill"] >= arc.prefill_ns * var)

    def _most(self) -> int:
        return self.stages or self.problem.max_stages

    def _hop(self, intra: IntArray, inter: IntArray, key: tuple[int, int, int]) -> int:
        _, a, b = key
        if a == b:
            return int(intra[self.point, self.part_classes[a]])
        return int(inter[self.point, self.part_classes[a], self.part_classes[b]])

    def _latency(self, model: CpModel, v: dict[str, Any]) -> None:
        """prefill_limit, ttft_limit, e2e_limit with wait = ceil(TPOT/2q)."""
        b, point = self.problem.bounds, self.problem.points[self.point]
        if point.role == "decode":
            return
        prefill = v["prefill_sum"] + (point.chunk_count - 1) * v["largest_prefill"]
        if b.prefill_ns is not None:
            model.add(prefill <= b.prefill_ns)
        if b.ttft_ns is None and b.e2e_ns is None:
            return
        most = max(x for x in (b.ttft_ns, b.e2e_ns) if x is not None)
        transfer = self.problem.transfer_ns(self.point)
        wait = model.new_int_var(0, most, "wait")
        model.add(2 * point.micro_batches * (wait - transfer) >= v["tpot"])
        if b.ttft_ns is not None:
            model.add(wait + prefill <= b.ttft_ns)
        if b.e2e_ns is not None:
            tokens = self.problem.output_mean - 1
            decode = model.new_int_var(0, most, "decode")
            model.add(tokens.denominator * decode >= tokens.numerator * v["tpot"])
            model.add(wait + prefill + decode <= b.e2e_ns)

    def _balance(
        self, model: CpModel, arcs: list[Arc], x: list[Any], v: dict[str, Any]
    ) -> None:
        """memory_imbalance, compute_imbalance, communication_share."""
        b = self.problem.bounds
        if b.memory_imbalance is not None:
            top = max((a.memory_bytes for a in arcs), default=0)
            largest = model.new_int_var(0, top, "memory")
            for arc, var in zip(arcs, x, strict=True):
                model.add(largest >= arc.memory_bytes * var)
            total = _dot(x, [a.all_bytes for a in arcs])
            self._even(model, largest, total, b.memory_imbalance)
        if b.compute_imbalance is not None:
            units = self.problem.units
            total = _dot(x, [units[a.unit].gpus * a.decode_ns for a in arcs])
            self._even(model, v["bottleneck"], total, b.compute_imbalance)
        if b.communication_share is not None:
            share = b.communication_share
            comm = _dot(x, [a.comm_ns for a in arcs]) + v["hop"]
            model.add(share.denominator * comm <= share.numerator * v["loop"])

    def _even(
        self, model: CpModel, largest: Any, total: Any, tolerance: Fraction
    ) -> None:
        """max v * G <= (1 + delta) * sum t v, G the GPUs of the composition."""
        units = self.problem.units
        if self.counts is None:
            raise ValueError("balance needs a given composition")
        gpus = sum(units[u].gpus * n for (_, u), n in self.counts.items())
        share = 1 + tolerance
        model.add(share.denominator * gpus * largest <= share.numerator * total)

    def decode(
        self, v: dict[str, Any], run: EngineRun
    ) -> tuple[Design, tuple[int, ...]]:
        """The design of a solution and the part of every stage."""
        chosen = sorted(
            (a for a, var in zip(v["arcs"], v["x"], strict=True) if run.value(var)),
            key=lambda a: a.start,
        )
        homes = tuple(a.part for a in chosen)
        stages = tuple(StageChoice(a.unit, a.start, a.end) for a in chosen)
        return Design(self.point, stages, crossings_of(homes)), homes


def _role(start: int, end: int, layers: int) -> int:
    if start == 0:
        return ONLY if end == layers else FIRST
    return LAST if end == layers else MIDDLE


def _dot(variables: list[Any], weights: list[int]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum(variables, weights)
