"""Fleets by prices: designs come from the pricing walk, compositions are never listed.

1. Columns of a single unit, by closed form (``uniform_columns``).
2. The fleet as a linear program over columns and island patterns; its duals price a
   segment of z GPUs of class k (``lp/patterns.py``).
3. Chains over all operating points (``dp/scan.py``): the designs they meet are new
   columns, and no design earns more than ``ratio`` times its price, so no fleet earns
   more than ratio times what the islands are worth. That is the bound.
4. The pattern program over the columns (CP-SAT): the plan.

2 and 3 repeat while new columns help. Used where compositions are too many to list.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, floor

import numpy as np

from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.formulations.cpsat.patterns import Column
from shardwright.formulations.dp import counts
from shardwright.formulations.dp.pricing import FloatArray, Pricer, Prices
from shardwright.formulations.dp.scan import Scan, Stages
from shardwright.formulations.lp.patterns import (
    SegmentPrices,
    island_values,
)
from shardwright.problem import (
    Design,
    IntArray,
    Problem,
    Signature,
    StageChoice,
    crossings_of,
)
from shardwright.search.chains import ChainPricer
from shardwright.search.chunks import ChunkGroups
from shardwright.search.columns import Entry
from shardwright.search.compositions import Composition, Part

LINEAR = ("throughput", "gpus", "cost")
_FLOAT = 1e-11
"""Relative allowance for the floating point of the walks and of the prices."""
_CHAIN_TRIED = 6
_PROMISING = 0.6
_TRIED = 4


def applies(problem: Problem) -> bool:
    """Whether pricing covers every rule of this problem."""
    b = problem.bounds
    return (
        counts.applicable(problem)
        and problem.layers > 1
        and not b.targets
        and not b.survive
        and b.replicas is None
        and all(point.role == "mixed" for point in problem.points)
        and all(u.islands == 1 and not u.shape.disaggregated for u in problem.units)
        and not any(map(problem.stands_alone, range(len(problem.units))))
        and problem.goals[0] in LINEAR
        and "ttft" not in problem.goals
    )


@dataclass(frozen=True)
class GoalPrices:
    """Prices in mtok/s, and the bound that a ratio proves for the goal.

    A fleet's price is at most ``worth`` (throughput), or at most ``worth`` plus
    ``per_unit`` times the goal's value (gpus, cost).
    """

    prices: Prices
    worth: float
    per_unit: float
    rate: int

    def bound(self, goal: str, ratio: float) -> int | None:
        """The bound on the goal when no design earns more than ratio x price."""
        if goal == "throughput":
            return floor(ratio * self.worth * (1 + _FLOAT))
        if self.per_unit <= 0:
            return None
        least = (self.rate / ratio - self.worth) / self.per_unit
        return max(0, ceil(least * (1 - _FLOAT) - _FLOAT))


def goal_prices(
    problem: Problem,
    duals: SegmentPrices,
    goal: str,
    least_rate: int,
    caps: tuple[int, int | None],
) -> GoalPrices | None:
    """From duals to prices in mtok/s; None when nothing is priced.

    ``caps``: GPUs and micro-USD per hour that the fleet rows allow.
    """
    scale = 1.0 if goal == "throughput" else duals.rate
    if scale <= 0:
        return None
    own_gpu = duals.gpu + (1.0 if goal == "gpus" else 0.0)
    own_cost = duals.cost + (1.0 if goal == "cost" else 0.0)
    rows = []
    for k, sizes in enumerate(duals.segment):
        each = own_gpu + own_cost * problem.classes[k].price_micro_usd_per_hour
        rows.append(tuple((p + each * z) / scale for z, p in enumerate(sizes)))
    values = island_values(problem, duals.segment)
    worth = sum(len(problem.island_types[t]) * v for t, v in values.items())
    worth += duals.gpu * caps[0] + duals.cost * (caps[1] or 0)
    per_unit = 0.0 if goal == "throughput" else 1.0 / scale
    return GoalPrices(Prices(tuple(rows)), worth / scale, per_unit, least_rate)


@dataclass(frozen=True)
class _Chain:
    """``stages`` units of one kind, at most ``on_one`` on an island.

    rates: what it could earn at the points ``at``; per_gpu: the most, per GPU.
    """

    unit: int
    gpu_class: int
    stages: int
    on_one: int
    rates: FloatArray
    at: IntArray
    per_gpu: float


@dataclass
class PricedColumns:
    """Exact columns, the best of every signature, and the pricers of the problem."""

    problem: Problem
    entries: dict[Signature, Entry] = field(default_factory=dict)
    refused: set[tuple[int, Stages]] = field(default_factory=set)
    polished: set[tuple[Signature, int]] = field(default_factory=set)

    @cached_property
    def chunks(self) -> ChunkGroups:
        """Points grouped by (M, q)."""
        return ChunkGroups(self.problem)

    @cached_property
    def pricers(self) -> tuple[Pricer, ...]:
        """One per set of units that may share a replica, and number of stages."""
        by_stages: dict[int | None, list[int]] = {}
        for o in self.chunks.variants:
            counted = self.problem.stage_counts(o)
            if len(counted):
                key = counted[0] if len(counted) == 1 else None
                by_stages.setdefault(key, []).append(o)
        return tuple(
            Pricer(
                self.problem,
                np.array(points, dtype=np.int64),
                units,
                tuple(self.chunks.variants[o] for o in points),
                stages,
            )
            for units in self._unit_sets()
            for stages, points in by_stages.items()
        )

    def _unit_sets(self) -> list[tuple[int, ...]]:
        units = self.problem.units
        if not self.problem.rules.equal_shape_per_stage:
            return [tuple(range(len(units)))]
        shapes = sorted({u.shape for u in units})
        return [tuple(i for i, u in enumerate(units) if u.shape == s) for s in shapes]

    def top(self, pricer: Pricer) -> FloatArray:
        """Caps on TPOT to begin with: the limit, or more than any design needs."""
        limit = self.problem.bounds.tpot_ns
        if limit is not None:
            return np.full(pricer.at.size, float(limit))
        worst = pricer.decode_layer.max(axis=1) * self.problem.layers
        ends = pricer.decode_role.max(axis=(1, 2)) * self.problem.max_stages
        hops = pricer.hop_inter.max(axis=(1, 2)) * self.problem.max_stages
        loop = worst + ends + hops + self.problem.tables.return_ns
        return np.asarray(np.ceil(pricer.micro_batches * loop))

    def column(self, entry: Entry) -> Column:
        """An entry as the fleet programs see it."""
        signature, classes = entry.composition.signature, self.problem.classes
        return Column(
            signature,
            sum(z for _, z in signature),
            sum(classes[k].price_micro_usd_per_hour * z for k, z in signature),
            entry.rate_mtok_per_s,
        )

    # -- new columns ------------------------------------------------------------------

    def add_uniform(self) -> None:
        """Replicas of one unit, at the points that promise most.

        Chains that promise far less than the best of their class are left out.
        """
        chains = [
            chain
            for pricer in self.pricers
            for u in range(len(pricer.units))
            for stages in self._stage_range(pricer)
            if (chain := self._chain(pricer, u, stages)) is not None
        ]
        best: dict[int, float] = {}
        for chain in chains:
            best[chain.gpu_class] = max(best.get(chain.gpu_class, 0), chain.per_gpu)
        for chain in chains:
            if chain.per_gpu >= _PROMISING * best[chain.gpu_class]:
                self._add_chain(chain)

    def _stage_range(self, pricer: Pricer) -> range:
        if pricer.stages is not None:
            return range(pricer.stages, pricer.stages + 1)
        return range(1, self.problem.max_stages + 1)

    def _chain(self, pricer: Pricer, u: int, stages: int) -> _Chain | None:
        """What ``stages`` units u could earn at every point, were its stages equal."""
        problem, k = self.problem, int(pricer.unit_class[u])
        gpus, length = int(pricer.gpus[u]), problem.layers
        free = self.problem.island_sizes[k]
        on_one = free[0] // gpus
        if stages > length or stages > sum(f // gpus for f in free):
            return None
        role = pricer.decode_role[:, u]
        roles = [ONLY] if stages == 1 else [FIRST, *[MIDDLE] * (stages - 2), LAST]
        crossings = -(-stages // on_one) - 1
        work = pricer.decode_layer[:, u] * length + sum(role[:, r] for r in roles)
        loop = work + crossings * pricer.hop_inter[:, k, k]
        loop = loop + (stages - 1 - crossings) * pricer.hop_intra[:, k]
        loop = loop + (problem.tables.return_ns if stages > 1 else 0)
        tpot = np.maximum(pricer.micro_batches * np.ceil(work / stages), loop)
        room = sum(pricer.most_layers[:, u, r] for r in roles)
        fits = (tpot <= self.top(pricer)) & (room >= length)
        rates = np.where(fits, pricer.tokens / tpot, 0.0)
        top = float(rates.max(initial=0.0))
        if top <= 0:
            return None
        unit = pricer.units[u]
        per_gpu = top / (gpus * stages)
        return _Chain(unit, k, stages, min(on_one, stages), rates, pricer.at, per_gpu)

    def _add_chain(self, chain: _Chain) -> None:
        """Its exact split at the best points, on as many islands as may be."""
        best = 0
        for i in np.argsort(-chain.rates)[:_CHAIN_TRIED].tolist():
            if chain.rates[i] <= best:
                return
            point = int(chain.at[i])
            design = self._chains.price(chain.unit, chain.stages, 0, point)
            for together in range(chain.on_one, 0, -1):
                stages = tuple(
                    (s.unit, s.end - s.start, j > 0 and j % together == 0)
                    for j, s in enumerate(design.stages if design else ())
                )
                entry = self._entry(design.point, stages) if design else None
                if entry is not None:
                    self._take(entry)
                    best = max(best, entry.rate_mtok_per_s)

    @cached_property
    def _chains(self) -> ChainPricer:
        return ChainPricer(self.problem, self.chunks)

    def add_found(self, found: Scan, prices: Prices, worst: float) -> int:
        """Designs of a scan that earn at least ``worst`` of their price, best first."""
        ranked: dict[Signature, list[tuple[float, int, Stages]]] = {}
        for (point, stages), tpot in found.designs.items():
            if (point, stages) in self.refused:
                continue
            rate = float(self.problem.points[point].period_tokens) * 1e12 / tpot
            signature = self._signature(stages)
            known = self.entries.get(signature)
            if known is not None and known.rate_mtok_per_s >= floor(rate):
                continue
            price = sum(prices.segment[k][z] for k, z in signature)
            if rate >= worst * price:
                ranked.setdefault(signature, []).append((rate, point, stages))
        added = 0
        for options in ranked.values():
            options.sort(key=lambda option: -option[0])
            for _, point, stages in options[:_TRIED]:
                if self.add(point, stages):
                    added += 1
                    break
                self.refused.add((point, stages))
        return added

    def _signature(self, stages: Stages) -> Signature:
        sizes: list[list[int]] = []
        for unit, _, opens in stages:
            u = self.problem.units[unit]
            if opens or not sizes:
                sizes.append([u.gpu_class, 0])
            sizes[-1][1] += u.gpus
        return tuple(sorted((k, z) for k, z in sizes))

    def add(self, point: int, stages: Stages) -> bool:
        """Make an exact column; False where it breaks a rule or the cluster's size."""
        entry = self._entry(point, stages)
        return entry is not None and self._take(entry)

    def _take(self, entry: Entry) -> bool:
        signature = entry.composition.signature
        known = self.entries.get(signature)
        if known is not None and known.rate_mtok_per_s >= entry.rate_mtok_per_s:
            return False
        self.entries[signature] = entry
        return True

    def _entry(self, point: int, stages: Stages) -> Entry | None:
        problem = self.problem
        if len(stages) not in problem.stage_counts(point):
            return None
        runs: list[list[int]] = []
        choices, start = [], 0
        for unit, layers, opens in stages:
            if opens or not runs:
                runs.append([])
            runs[-1].append(unit)
            choices.append(StageChoice(unit, start, start + layers))
            start += layers
        parts = [
            Part(problem.units[run[0]].gpu_class, tuple(sorted(run))) for run in runs
        ]
        order = sorted(range(len(parts)), key=lambda i: parts[i])
        place = {run: i for i, run in enumerate(order)}
        homes = tuple(place[i] for i, run in enumerate(runs) for _ in run)
        design = Design(point, tuple(choices), crossings_of(homes))
        return self._exact(design, homes, [parts[i] for i in order])

    def _exact(
        self, design: Design, homes: tuple[int, ...], parts: list[Part]
    ) -> Entry | None:
        problem = self.problem
        signature = tuple(
            sorted(
                (p.gpu_class, sum(problem.units[u].gpus for u in p.units))
                for p in parts
            )
        )
        if not self._exists(signature):
            return None
        for o in self.chunks.variants[self.chunks.by_point[design.point]]:
            moved = replace(design, point=o)
            figures = problem.figures(moved)
            if problem.design_fits(moved, figures):
                return Entry(
                    Composition(tuple(parts), signature),
                    o,
                    figures.times.tpot_ns,
                    figures.times.ttft_ns,
                    figures.rate_mtok_per_s,
                    moved,
                    homes,
                )
        return None

    def _exists(self, signature: Signature) -> bool:
        """Whether distinct islands can hold the parts, and the GPUs in use suffice."""
        if sum(z for _, z in signature) > self.problem.usable_gpus:
            return False
        for k in {k for k, _ in signature}:
            free = self.problem.island_sizes[k]
            mine = sorted((z for c, z in signature if c == k), reverse=True)
            if len(mine) > len(free) or any(
                z > f for z, f in zip(mine, free, strict=False)
            ):
                return False
        return True

    def polish(self, entry: Entry) -> bool:
        """The least TPOT of an entry's composition at its point, exactly."""
        key = (entry.composition.signature, entry.point)
        if entry.composition.stages == 1 or key in self.polished:
            return False
        self.polished.add(key)
        parts = tuple((p.gpu_class, p.units) for p in entry.composition.parts)
        try:
            found = counts.least_tpot_design(self.problem, parts, entry.point)
        except counts.PrefillBinds:
            return False
        if found is None:
            return False
        design, homes = found
        better = self._exact(design, homes, list(entry.composition.parts))
        return better is not None and self._take(better)
