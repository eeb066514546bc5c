"""A fast, honest heuristic: identical replicas of equal splits, packed first-fit.

It knows one kind of design: one unit type, layers split as evenly as they can be, as
few island borders as the islands allow. Designs are taken by the first goal's own
measure (most rate per GPU, or fewest GPUs), replicas are placed one by one where they
fit best, and the best fleet met while filling is kept. Nothing is proven:
the status is FEASIBLE or UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from shardwright.problem import (
    Design,
    Figures,
    Fleet,
    PlacedReplica,
    Problem,
    StageChoice,
    crossings_of,
)
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import (
    Interrupted,
    SearchLimits,
    SearchOutcome,
    require_goals,
    require_plain,
    require_single_islands,
)
from shardwright.search.goals import (
    ALL_GOALS,
    better,
    fleet_rows_fit,
    goal_value,
)
from shardwright.search.verify import verified, well_formed

_TRIED = 12
"""Designs from which a fleet is begun."""


@dataclass(frozen=True)
class _Kind:
    """A homogeneous design: point, unit, layers per stage."""

    point: int
    unit: int
    split: tuple[int, ...]


@dataclass
class _Ground:
    """What is still free on every island."""

    problem: Problem
    free: list[int]

    @classmethod
    def of(cls, problem: Problem) -> _Ground:
        """All of it."""
        return cls(problem, [island.free for island in problem.islands])

    def place(self, kind: _Kind) -> PlacedReplica | None:
        """Put one replica on as few islands as possible; None leaves all as it was."""
        islands = self._islands(kind)
        if islands is None:
            return None
        unit = self.problem.units[kind.unit]
        for island in islands:
            self.free[island] -= unit.gpus
        stages, start = [], 0
        for layers in kind.split:
            stages.append(StageChoice(kind.unit, start, start + layers))
            start += layers
        crossings = crossings_of(islands)
        borders = zip(islands[1:], crossings, strict=True)
        homes = [islands[0], *(island for island, crosses in borders if crosses)]
        design = Design(kind.point, tuple(stages), crossings)
        return PlacedReplica(design, tuple((island,) for island in homes))

    def give_back(self, replica: PlacedReplica) -> None:
        """Free the GPUs of a replica."""
        runs = replica.design.segment_runs()
        for (island,), run in zip(replica.islands, runs, strict=True):
            unit = self.problem.units[replica.design.stages[run[0]].unit]
            self.free[island] += unit.gpus * len(run)

    def _islands(self, kind: _Kind) -> list[int] | None:
        """The tightest island that holds all stages, else the roomiest ones."""
        unit, stages = self.problem.units[kind.unit], len(kind.split)
        room = {
            i: self.free[i] // unit.gpus
            for i, island in enumerate(self.problem.islands)
            if island.gpu_class == unit.gpu_class and self.free[i] >= unit.gpus
        }
        whole = [i for i, stages_there in room.items() if stages_there >= stages]
        if whole:
            return [min(whole, key=lambda i: (self.free[i], i))] * stages
        chosen: list[int] = []
        for i in sorted(room, key=lambda i: (-room[i], i)):
            chosen += [i] * min(room[i], stages - len(chosen))
        return chosen if len(chosen) == stages else None


@dataclass(frozen=True)
class GreedySolver:
    """Homogeneous designs, best first."""

    name: str = "greedy"

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """A fleet that keeps every rule, or UNKNOWN."""
        require_goals(self.name, problem, ALL_GOALS)
        require_plain(self.name, problem)
        require_single_islands(self.name, problem)
        best: _Filling | None = None
        ranked: list[_Kind] = []
        stopped: StoppedBy = "gap"
        try:
            ranked = _ranked(problem, limits)
            for kind in ranked[:_TRIED]:
                limits.poll()
                fleet = _fleet(problem, kind, ranked, limits)
                if fleet.best and (
                    best is None or better(problem.goals, fleet.values, best.values)
                ):
                    best = fleet
        except Interrupted as interruption:
            stopped = interruption.stopped_by
        size = {"designs": len(ranked)}
        if best is None:
            return SearchOutcome(Status.UNKNOWN, stopped, None, model_size=size)
        chosen = Fleet(tuple(best.replicas[: best.best]))
        return verified(
            self.name, problem, chosen, Status.FEASIBLE, stopped, model_size=size
        )


def _ranked(problem: Problem, limits: SearchLimits) -> list[_Kind]:
    """The best design of every unit and stage count, alone on the cluster; best
    first."""
    found: list[tuple[tuple[Fraction | int, ...], _Kind]] = []
    for kind in _kinds(problem):
        limits.poll()
        replica = _Ground.of(problem).place(kind)
        if replica is None or not well_formed(problem, replica.design):
            continue
        figures = problem.figures(replica.design)
        if problem.design_fits(replica.design, figures):
            found.append((_rank(problem, figures), kind))
    found.sort(key=lambda pair: pair[0])
    best: dict[tuple[int, int], _Kind] = {}
    for _, kind in found:
        best.setdefault((kind.unit, len(kind.split)), kind)
    return list(best.values())


def _kinds(problem: Problem) -> Iterator[_Kind]:
    for point in _points(problem):
        for stages in problem.stage_counts(point):
            for split in _splits(problem, stages):
                for unit in range(len(problem.units)):
                    yield _Kind(point, unit, split)


def _points(problem: Problem) -> list[int]:
    """Where nothing limits prefill, the smallest chunk of each (M, q) is enough."""
    b = problem.bounds
    late = any(limit is not None for limit in (b.prefill_ns, b.ttft_ns, b.e2e_ns))
    if late or "ttft" in problem.goals:
        return list(range(len(problem.points)))
    smallest: dict[tuple[int, int], int] = {}
    for o, point in enumerate(problem.points):
        key = (point.sequences, point.micro_batches)
        known = smallest.setdefault(key, o)
        if point.chunk_tokens < problem.points[known].chunk_tokens:
            smallest[key] = o
    return sorted(smallest.values())


def _splits(problem: Problem, stages: int) -> list[tuple[int, ...]]:
    """The fixed split, else even ones: the longer stages in front, behind, or in
    the middle (first and last stages carry the embedding and the head)."""
    fixed = problem.bounds.split
    if fixed is not None:
        whole = len(fixed) == stages and sum(fixed) == problem.layers
        return [fixed] if whole else []
    short, longer = divmod(problem.layers, stages)
    ahead = (short + 1,) * longer + (short,) * (stages - longer)
    turn = (stages - longer) // 2
    middle = ahead[stages - turn :] + ahead[: stages - turn]
    return list(dict.fromkeys([ahead, tuple(reversed(ahead)), middle]))


def _rank(problem: Problem, f: Figures) -> tuple[Fraction | int, ...]:
    """Smaller is better: by the first goal, then by rate per GPU."""
    gpus = sum(f.gpus)
    per_gpu = -Fraction(f.rate_mtok_per_s, gpus)
    cost, goal = f.cost_micro_usd_per_hour, problem.goals[0]
    demand = problem.bounds.rate_mtok_per_s is not None
    first: Fraction | int = per_gpu
    if goal == "cost":
        first = -Fraction(f.rate_mtok_per_s, max(1, cost)) if demand else cost
    elif goal == "gpus":
        first = per_gpu if demand else gpus
    elif goal in ("tpot", "ttft"):
        first = f.times.tpot_ns if goal == "tpot" else f.times.ttft_ns
    return (first, per_gpu, gpus, f.times.tpot_ns)


@dataclass
class _Filling:
    """A fleet that grows by one replica at a time, and the best one on the way."""

    problem: Problem
    ground: _Ground
    replicas: list[PlacedReplica] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    best: int = 0
    values: tuple[int, ...] = ()

    def add(self, kind: _Kind) -> bool:
        """One more replica, when it fits on the ground and in the budgets."""
        most = self.problem.bounds.replicas
        if most is not None and len(self.replicas) >= most:
            return False
        replica = self.ground.place(kind)
        if replica is None:
            return False
        figures = self.problem.figures(replica.design)
        if not self._affordable(replica, figures):
            self.ground.give_back(replica)
            return False
        self.replicas.append(replica)
        self.figures.append(figures)
        self._remember()
        return True

    def _affordable(self, replica: PlacedReplica, figures: Figures) -> bool:
        """Rules of the replica where it came to lie, and the budgets of the fleet."""
        budget = self.problem.bounds.max_cost_micro_usd_per_hour
        larger = [*self.figures, figures]
        return (
            self.problem.design_fits(replica.design, figures)
            and goal_value("gpus", larger) <= self.problem.usable_gpus
            and (budget is None or goal_value("cost", larger) <= budget)
        )

    def _remember(self) -> None:
        if not fleet_rows_fit(self.problem, self.figures):
            return
        goals = self.problem.goals
        values = tuple(goal_value(goal, self.figures) for goal in goals)
        if not self.best or better(goals, values, self.values):
            self.best, self.values = len(self.replicas), values


def _fleet(
    problem: Problem, first: _Kind, ranked: list[_Kind], limits: SearchLimits
) -> _Filling:
    """Fill the cluster with ``first``, then with whatever still fits."""
    filling = _Filling(problem, _Ground.of(problem))
    for kind in [first, *ranked]:
        while filling.add(kind):
            limits.poll()
    return filling
