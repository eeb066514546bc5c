"""Brute force over a tiny problem: every design, then every fleet that packs.

Nothing here is clever on purpose: it is the oracle of the other solvers. Stages that
break a rule by themselves are not extended; of all designs with the same ordered
segments those are kept that no other beats in every figure that a goal or a fleet row
reads; fleets that differ by a permutation of replicas or of equal islands count once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from shardwright.cost.law import replica_times, served
from shardwright.formulations.ranges import StageTables
from shardwright.problem import (
    Design,
    Figures,
    Fleet,
    PlacedReplica,
    PoolRole,
    Problem,
    StageChoice,
)
from shardwright.schema.errors import InstanceTooLarge, UnsupportedRule
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import (
    Interrupted,
    SearchLimits,
    SearchOutcome,
    require_goals,
)
from shardwright.search.goals import ALL_GOALS, sense, survives_gpus, whole
from shardwright.search.packing import (
    Segments,
    State,
    Yard,
    name_islands,
    ordered_segments,
)
from shardwright.search.verify import verified

MAX_DESIGNS = 500_000
MAX_FLEETS = 2_000_000
_POLL_EVERY = 256
_PROOF: StoppedBy = "proof"


@dataclass(frozen=True)
class Column:
    """A design with what the fleet rows and goals read of it."""

    segments: Segments
    design: Design
    role: PoolRole
    gpus: int
    cost: int
    rate: int
    tpot: int
    ttft: int

    def beats(self, other: Column, goals: tuple[str, ...]) -> bool:
        """No worse in every figure that counts."""
        return (
            self.role == other.role
            and self.rate >= other.rate
            and ("tpot" not in goals or self.tpot <= other.tpot)
            and ("ttft" not in goals or self.ttft <= other.ttft)
        )


class Count:
    """Counts steps, polls the limits, refuses beyond ``most``."""

    def __init__(self, what: str, most: int, limits: SearchLimits) -> None:
        self.what, self.most, self.limits, self.seen = what, most, limits, 0

    def step(self) -> None:
        """One more."""
        self.seen += 1
        if self.seen > self.most:
            raise InstanceTooLarge(
                f"exhaustive search is for at most {self.most} {self.what}"
            )
        if self.seen % _POLL_EVERY == 0:
            self.limits.poll()


@dataclass(frozen=True)
class DesignSearch:
    """Every design of a problem that keeps the rules of one replica."""

    problem: Problem
    yard: Yard
    count: Count

    @cached_property
    def tables(self) -> StageTables:
        """Figures of stages."""
        return StageTables(self.problem)

    def columns(self) -> list[Column]:
        """Non-dominated designs of every ordered list of segments."""
        kept: dict[Segments, list[Column]] = {}
        for point in range(len(self.problem.points)):
            for column in self.designs(point):
                self._keep(kept.setdefault(column.segments, []), column)
        return [column for key in sorted(kept) for column in kept[key]]

    def designs(self, point: int) -> Iterator[Column]:
        """Every design of a point that keeps the rules of one replica."""
        for wanted in self.problem.stage_counts(point):
            for stages in self._stage_lists(point, wanted, ()):
                yield from self._columns_of(point, stages)

    def _keep(self, front: list[Column], column: Column) -> None:
        goals = self.problem.goals
        if not any(old.beats(column, goals) for old in front):
            front[:] = [old for old in front if not column.beats(old, goals)]
            front.append(column)

    def _stage_lists(
        self, point: int, wanted: int, stages: tuple[StageChoice, ...]
    ) -> Iterator[tuple[StageChoice, ...]]:
        start, layers = stages[-1].end if stages else 0, self.problem.layers
        left = wanted - len(stages)
        if left == 0:
            yield stages
            return
        ends = range(layers, layers + 1) if left == 1 else range(start + 1, layers)
        for unit in self._units_after(stages):
            for end in ends:
                if layers - end >= left - 1 and self.tables.allowed(
                    point, unit, start, end
                ):
                    stage = StageChoice(unit, start, end)
                    yield from self._stage_lists(point, wanted, (*stages, stage))

    def _units_after(self, stages: tuple[StageChoice, ...]) -> list[int]:
        units = self.problem.units
        used = [0] * len(self.problem.classes)
        for stage in stages:
            used[units[stage.unit].gpu_class] += units[stage.unit].gpus
        room = self.problem.usable_gpus - sum(used)
        return [
            i
            for i, u in enumerate(units)
            if u.gpus <= room
            and used[u.gpu_class] + u.gpus
            <= self.problem.classes[u.gpu_class].free_gpus
            and (not stages or self.problem.may_join(stages[0].unit, i))
        ]

    def _columns_of(
        self, point: int, stages: tuple[StageChoice, ...]
    ) -> Iterator[Column]:
        for crossings in self._crossings(stages):
            self.count.step()
            design = Design(point, stages, crossings)
            segments = ordered_segments(self.problem, design)
            if self.yard.fits(segments):
                f = self._figures(design)
                rate = self._rate(design, f)
                if rate is not None and self.problem.design_fits(design, f):
                    yield Column(
                        segments,
                        design,
                        f.role,
                        sum(f.gpus),
                        f.cost_micro_usd_per_hour,
                        rate,
                        0 if f.role == "prefill" else f.times.tpot_ns,
                        f.times.ttft_ns,
                    )

    def _rate(self, design: Design, f: Figures) -> int | None:
        """The rate that keeps the percentile targets; None where none does."""
        if self.problem.percentiles is None:
            return f.rate_mtok_per_s
        return self.problem.rated(design).rate_mtok_per_s or None

    def _crossings(self, stages: tuple[StageChoice, ...]) -> list[tuple[bool, ...]]:
        units = [self.problem.units[s.unit] for s in stages]
        patterns: list[tuple[bool, ...]] = [()]
        for a, b in pairwise(units):
            alike = a.gpu_class == b.gpu_class and a.islands == b.islands == 1
            choices = (False, True) if alike else (True,)
            patterns = [(*p, c) for p in patterns for c in choices]
        return patterns

    def _figures(self, design: Design) -> Figures:
        """The law over the range tables; ``verified`` evaluates answers again."""
        t, o, ranges = self.problem.tables, design.point, design.stages
        decode, prefill, comm = (
            tuple(cube[o][s.unit][s.start][s.end] for s in ranges)
            for cube in (self.tables.decode, self.tables.prefill, self.tables.comm)
        )
        held = (self.tables.memory_by_sort(o, s.unit, s.start, s.end) for s in ranges)
        memory, *apart = zip(*held, strict=True)
        hops, prefill_hops = self._hops(design)
        back = t.return_ns if len(ranges) > 1 else 0
        point = self.problem.points[o]
        times = replica_times(
            point.micro_batches,
            point.chunk_count,
            decode,
            prefill,
            hops,
            prefill_hops,
            t.return_ns,
            self.problem.transfer_ns(o),
        )
        gpus = [0] * len(self.problem.classes)
        for stage in ranges:
            unit = self.problem.units[stage.unit]
            gpus[unit.gpu_class] += unit.gpus
        prices = (k.price_micro_usd_per_hour for k in self.problem.classes)
        caching = self.problem.caching_gpus(s.unit for s in ranges)
        return Figures(
            times,
            self.problem.rate_mtok_per_s(o, times.tpot_ns, caching),
            decode,
            prefill,
            memory,
            sum(comm) + sum(hops) + back,
            tuple(gpus),
            sum(n * price for n, price in zip(gpus, prices, strict=True)),
            point.role,
            *apart,
        )

    def _hops(self, design: Design) -> tuple[list[int], list[int]]:
        return self.problem.hops(design) if design.crossings else ([], [])


@dataclass
class FleetSearch:
    """Every multiset of columns that packs; keeps the lexicographic best."""

    problem: Problem
    columns: list[Column]
    yard: Yard
    count: Count
    best: tuple[int, ...] | None = None
    chosen: tuple[Column, ...] = ()
    _reach: dict[tuple[frozenset[State], Segments], frozenset[State]] = field(
        default_factory=dict
    )

    def run(self) -> None:
        """Search all fleets."""
        self._grow(0, frozenset([self.yard.empty]), ())

    def _grow(
        self, first: int, states: frozenset[State], fleet: tuple[Column, ...]
    ) -> None:
        for index in range(first, len(self.columns)):
            column = self.columns[index]
            reached = self._after(states, column.segments)
            larger = (*fleet, column)
            if reached and self._within_budgets(larger):
                self.count.step()
                self._consider(larger)
                self._grow(index, reached, larger)

    def _after(self, states: frozenset[State], segments: Segments) -> frozenset[State]:
        key = (states, segments)
        if key not in self._reach:
            self._reach[key] = self.yard.after_any(segments, states)
        return self._reach[key]

    def _within_budgets(self, fleet: tuple[Column, ...]) -> bool:
        """Rows that a larger fleet breaks as well."""
        b = self.problem.bounds
        most = b.max_cost_micro_usd_per_hour
        return (
            sum(c.gpus for c in fleet) <= self.problem.usable_gpus
            and (most is None or sum(c.cost for c in fleet) <= most)
            and (b.replicas is None or len(fleet) <= b.replicas)
        )

    def _consider(self, fleet: tuple[Column, ...]) -> None:
        b = self.problem.bounds
        if b.replicas is not None and len(fleet) != b.replicas:
            return
        roles = [c.role for c in fleet]
        if not whole(roles):
            return
        rate = served(zip(roles, (c.rate for c in fleet), strict=True))
        if b.rate_mtok_per_s is not None and rate < b.rate_mtok_per_s:
            return
        if not survives_gpus(self.problem, [c.rate for c in fleet]):
            return
        values = {
            "gpus": sum(c.gpus for c in fleet),
            "cost": sum(c.cost for c in fleet),
            "throughput": rate,
            "tpot": max(c.tpot for c in fleet),
            "ttft": max(c.ttft for c in fleet),
        }
        key = tuple(sense(g) * values[g] for g in self.problem.goals)
        if self.best is None or key < self.best:
            self.best, self.chosen = key, fleet

    def fleet(self) -> Fleet | None:
        """The best fleet with its islands."""
        if not self.chosen:
            return None
        islands = name_islands(self.problem, [c.segments for c in self.chosen])
        assert islands is not None, "the states said that it packs"
        pairs = zip(self.chosen, islands, strict=True)
        return Fleet(tuple(PlacedReplica(c.design, i) for c, i in pairs))


@dataclass(frozen=True)
class ExhaustiveSolver:
    """All designs, all fleets."""

    name: str = "exhaustive"

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """The lexicographic optimum of a tiny problem, or that there is none."""
        require_goals(self.name, problem, ALL_GOALS)
        if any(rule.of_nodes for rule in problem.bounds.survive):
            raise UnsupportedRule(self.name, "survive nodes")
        yard = Yard(problem)
        designs = Count("designs", MAX_DESIGNS, limits)
        fleets = Count("fleets", MAX_FLEETS, limits)
        search: FleetSearch | None = None
        status, stopped_by = Status.OPTIMAL, _PROOF
        try:
            limits.poll()
            columns = DesignSearch(problem, yard, designs).columns()
            search = FleetSearch(problem, columns, yard, fleets)
            search.run()
        except Interrupted as interruption:
            status, stopped_by = Status.FEASIBLE, interruption.stopped_by
        size = {"designs": designs.seen, "fleets": fleets.seen}
        fleet = search.fleet() if search else None
        if fleet is None:
            proven = status is Status.OPTIMAL
            status = Status.INFEASIBLE if proven else Status.UNKNOWN
            return SearchOutcome(status, stopped_by, None, model_size=size)
        return verified(self.name, problem, fleet, status, stopped_by, model_size=size)
