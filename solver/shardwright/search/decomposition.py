"""The default solver: price designs, choose the fleet, repeat until bound = value.

Every composition and operating point is a column (``columns.py``). Columns of one unit
are exact; mixed ones start with a proven lower bound on TPOT, that is an upper bound
on their rate. The fleet program over these optimistic columns bounds the optimum;
columns that it picks are solved exactly and it is solved again, until everything it
picks is exact: then its optimum is the optimum over all designs of the grid.

TPOT and TTFT goals are thresholds: the least cap under which a fleet exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwright.formulations.cpsat.engine import EngineRun, run
from shardwright.formulations.cpsat.patterns import (
    Column,
    Cut,
    fleet_model,
)
from shardwright.formulations.lp.fleet import fleet_prices
from shardwright.problem import Fleet, Problem
from shardwright.schema.errors import SolverFailure
from shardwright.schema.result import Status
from shardwright.search.base import (
    Interrupted,
    SearchLimits,
    SearchOutcome,
    require_goals,
)
from shardwright.search.columns import ColumnPool, Entry
from shardwright.search.compositions import too_many
from shardwright.search.fleets import Laid, UsedPatterns, place, unknown_of
from shardwright.search.goals import ALL_GOALS, sense
from shardwright.search.progress import LINEAR, Progress

_MANY = 60
_ROUNDS_PER_PLAN = 6
_PRICED_AT_ONCE = 16


class NotLaid(Exception):
    """A fleet was neither laid on islands nor shown to have no place."""


class Infeasible(Exception):
    """No fleet keeps all rules; proven."""


@dataclass(frozen=True)
class DecompositionSolver:
    """Column enumeration with lazy exact pricing; the fleet program by CP-SAT."""

    name: str = "default"

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """Optimise the goals lexicographically, with proof.

        Where links differ and fleets are not laid on islands, the outcome is that of
        the fastest links: whoever names GPUs has to hold the values against it.
        """
        require_goals(self.name, problem, ALL_GOALS)
        try:
            return self._searched(_search(problem, limits))
        except NotLaid:
            return self._searched(Search(replace(problem, reach=None), limits))

    def _searched(self, search: Search) -> SearchOutcome:
        try:
            search.all_goals()
        except Infeasible:
            return search.outcome(Status.INFEASIBLE, "proof")
        except Interrupted as interruption:
            found = Status.FEASIBLE if search.fleet else Status.UNKNOWN
            return search.outcome(found, interruption.stopped_by)
        if search.gap_used:
            return search.outcome(Status.FEASIBLE, "gap")
        if tuple(search.bounds) != search.values:
            return search.outcome(Status.FEASIBLE, "memory")
        return search.outcome(Status.OPTIMAL, "proof")


@dataclass
class Search(Progress):
    """One lexicographic search."""

    tpot_cap_ns: int | None = None

    def all_goals(self) -> None:
        """One goal after another, each within the values of the earlier ones."""
        pool = self._build(self.problem)
        self._first_plan(pool)
        self._complete(pool)
        for goal in self.problem.goals:
            self.open_bound = None
            if goal in LINEAR:
                self._linear(pool, goal)
            elif goal == "tpot":
                self._least_tpot(pool)
            else:
                pool = self._least_ttft(pool)

    def _pool(self, problem: Problem) -> ColumnPool:
        pool = self._build(problem)
        self._complete(pool)
        return pool

    def _build(self, problem: Problem) -> ColumnPool:
        return ColumnPool.build(problem, self.limits)

    def _as_columns(
        self, pool: ColumnPool, entries: Sequence[Entry], ceilings: bool
    ) -> list[Column]:
        return [pool.column(e, ceilings) for e in entries]

    def _linked(
        self, entries: list[Entry], patterns: UsedPatterns, pooled: bool
    ) -> UsedPatterns | Laid | None:
        """Where the fleet lies; None where links forbid it, which is now a cut."""
        return patterns

    def _cuts(self) -> list[Cut]:
        """Replicas that cannot be together."""
        return []

    def _proves(self, pool: ColumnPool) -> bool:
        """Whether bounds of programs over the pool bound all fleets."""
        return pool.complete and not pool.open

    def _linear_bound(self, pool: ColumnPool, goal: str, bound: int) -> int:
        """The bound that the last fleet program proves."""
        return bound

    def _complete(self, pool: ColumnPool) -> None:
        pool.add_mixed()
        self.sizes["columns"] = max(pool.size, self.sizes.get("columns", 0))
        self.sizes["signatures"] = len(pool.by_signature)

    def _first_plan(self, pool: ColumnPool) -> None:
        """An early plan from exact columns alone, for the first linear goal."""
        goal = next((g for g in self.problem.goals if g in LINEAR), "feasible")
        self._plan_of_exact(pool, goal)

    def _plan_of_exact(self, pool: ColumnPool, goal: str) -> None:
        """Keep the best fleet of exact columns if it beats the plan at hand."""
        known = pool.best(self.tpot_cap_ns, exact=True)
        if not known:
            return
        _, chosen = self._solve(pool, known, goal)
        if chosen is not None:
            self._keep(pool, *chosen)

    def _linear(self, pool: ColumnPool, goal: str) -> None:
        """gpus, cost, throughput: the optimum of the fleet program."""
        outcome, fleet = self._settle(pool, goal)
        assert outcome.objective is not None
        self._keep_fleet(fleet, final=True)
        bound = outcome.objective if outcome.bound is None else outcome.bound
        bound = self._linear_bound(pool, goal, bound)
        value = self.values[len(self.bounds)]
        if not pool.complete:
            bound = self._pooled_bound(pool, goal, value)
        if pool.open:
            bound = self._bound_of_ceilings(pool, goal)
        if sense(goal) * (value - bound) < 0:
            raise SolverFailure(f"{goal} {value} is beyond its proven bound {bound}")
        self.bounds.append(bound)
        names = {"gpus": "max_gpus", "cost": "max_cost", "throughput": "min_rate"}
        self.rows = replace(self.rows, **{names[goal]: value})

    def _settle(self, pool: ColumnPool, goal: str) -> tuple[EngineRun, Fleet]:
        """Solve the fleet program until all columns it picks are exact."""
        while True:
            outcome, chosen = self._solve(pool, self._promising(pool, goal), goal)
            if chosen is None:
                self._nothing_fits(pool)
                raise Infeasible
            if self._proves(pool):
                self._tighten(goal, outcome.bound)
            if self._within_gap(goal):
                assert self.fleet is not None
                self.gap_used = True
                return replace(outcome, objective=self.open_bound), self.fleet
            entries, patterns = chosen
            unknown = unknown_of(entries)
            if unknown:
                self._price(pool, unknown, goal)
                continue
            if outcome.status is not Status.OPTIMAL:
                self._keep(pool, *chosen)
                self.limits.poll()
                raise Interrupted("time")
            return outcome, place(pool.problem, pool.chunks, entries, patterns)

    def _nothing_fits(self, pool: ColumnPool) -> None:
        """Infeasible over an incomplete pool proves nothing unless GPUs pooled fail,

        nor does it while a column is not known to have its largest rate.
        """
        if pool.open:
            entries = pool.best_possible()
            if self._solve(pool, entries, "feasible", ceilings=True)[1] is not None:
                raise Interrupted("memory")
        if pool.complete:
            return
        entries = pool.best(self.tpot_cap_ns)
        if self._solve(pool, entries, "feasible", pooled=True)[1] is not None:
            raise Interrupted("memory")

    def _bound_of_ceilings(self, pool: ColumnPool, goal: str) -> int:
        """Bound when every column has the largest rate that it could have."""
        entries = pool.best_possible()
        outcome = self._solve(pool, entries, goal, pooled=True, ceilings=True)[0]
        if outcome.bound is None:
            raise SolverFailure(f"no bound of {goal} over the ceilings of the columns")
        return outcome.bound

    def _pooled_bound(self, pool: ColumnPool, goal: str, value: int) -> int:
        """Bound of an incomplete pool: every composition, islands forgotten."""
        while True:
            entries = self._promising(pool, goal)
            outcome, chosen = self._solve(pool, entries, goal, pooled=True)
            if chosen is None or outcome.bound is None:
                raise SolverFailure(f"GPUs pooled cannot hold a plan of {goal} {value}")
            self._tighten(goal, outcome.bound)
            unknown = unknown_of(chosen[0])
            if not unknown or outcome.bound == value:
                return outcome.bound
            self._price(pool, unknown, goal)

    def _promising(self, pool: ColumnPool, goal: str) -> list[Entry]:
        """Best columns, without those that no plan as good as ours can use.

        While there are many, promising ones that are only bounded are priced first:
        a linear program costs less than a fleet program. Now and then a fleet of what
        is exact by now raises the plan that the others are held against.
        """
        rounds = 0
        while True:
            rounds += 1
            if rounds % _ROUNDS_PER_PLAN == 0:
                self._plan_of_exact(pool, goal)
            entries = pool.best(self.tpot_cap_ns)
            if goal not in LINEAR or len(entries) < _MANY:
                return entries
            columns = [pool.column(e) for e in entries]
            prices = fleet_prices(self.problem, columns, self.rows, goal)
            if prices is None:  # the fleet program decides: GLOP works in floats
                return entries
            if not pool.open:  # else some column may be faster than it is here
                self._tighten(goal, prices.bound())
            kept = prices.promising(self.values[len(self.bounds) :][:1])
            unknown = [entries[j] for j in kept if entries[j].design is None]
            if not unknown and not self.values:
                self._plan_of_exact(pool, goal)
                if not self.values:
                    return entries
            elif self.values and (len(kept) < _MANY or not unknown):
                return [entries[j] for j in kept]
            self._price(pool, unknown[:_PRICED_AT_ONCE], goal)

    def _price(self, pool: ColumnPool, unknown: list[Entry], goal: str) -> None:
        for entry in unknown:
            pool.solve(entry)
        self.sizes["columns_priced"] = pool.solved

    def _least_tpot(self, pool: ColumnPool) -> None:
        """The least TPOT cap under which a fleet keeps the earlier goals."""
        while True:
            value, entries, patterns = self._least_cap(pool)
            unknown = unknown_of(entries)
            if not unknown:
                break
            self._price(pool, unknown, "tpot")
        self._keep_fleet(
            place(pool.problem, pool.chunks, entries, patterns), final=True
        )
        attained = self.values[len(self.bounds)]
        if attained > value or (attained < value and self._proves(pool)):
            raise SolverFailure(f"TPOT {attained} attained under the least cap {value}")
        self.bounds.append(value if self._proves(pool) else None)
        self.tpot_cap_ns = attained

    def _least_cap(
        self, pool: ColumnPool
    ) -> tuple[int, list[Entry], UsedPatterns | Laid]:
        """Bisect over the TPOT values of the pool, optimistic columns included."""
        caps = pool.tpot_values()
        if self.tpot_cap_ns is not None:
            caps = [c for c in caps if c <= self.tpot_cap_ns]
        low, high, best = 0, len(caps) - 1, None
        while low <= high:
            middle = (low + high) // 2
            known = pool.best(caps[middle])
            chosen = self._solve(pool, known, "feasible")[1] if known else None
            if chosen is None:
                low = middle + 1
            else:
                used = max(pool.tpot_ns(e) for e in chosen[0])
                best = (used, *chosen)
                high = caps.index(used) - 1
        if best is None:
            raise Infeasible
        return best

    def _least_ttft(self, pool: ColumnPool) -> ColumnPool:
        """Bisect the TTFT limit; every step prices the columns anew."""
        if self.fleet is None:
            _, self.fleet = self._settle(pool, "feasible")
        self._keep_fleet(self.fleet, final=True)
        index = len(self.bounds)
        low, high = 0, self.values[index]
        while low < high:
            middle = (low + high) // 2
            attempt = self._limited(middle)
            try:
                _, fleet = self._settle(attempt, "feasible")
            except Infeasible:
                low = middle + 1
                continue
            self._keep_fleet(fleet, final=True)
            high = self.values[index]
        self.bounds.append(high if self._proves(pool) else None)
        self.problem = replace(
            self.problem, bounds=replace(self.problem.bounds, ttft_ns=high)
        )
        return self._pool(self.problem)

    def _limited(self, ttft_ns: int) -> ColumnPool:
        bounds = replace(self.problem.bounds, ttft_ns=ttft_ns)
        return self._pool(replace(self.problem, bounds=bounds))

    def _solve(
        self,
        pool: ColumnPool,
        entries: Sequence[Entry],
        goal: str,
        *,
        pooled: bool = False,
        ceilings: bool = False,
    ) -> tuple[EngineRun, tuple[list[Entry], UsedPatterns | Laid] | None]:
        """One fleet program; None when it is infeasible."""
        if not entries:
            return EngineRun(Status.INFEASIBLE), None
        columns = self._as_columns(pool, entries, ceilings)
        while True:
            program = fleet_model(
                self.problem, columns, self.rows, goal, pooled=pooled, cuts=self._cuts()
            )
            outcome = run(program.model, self.limits)
            self.sizes["fleet_programs"] = self.sizes.get("fleet_programs", 0) + 1
            if outcome.status is Status.INFEASIBLE:
                return outcome, None
            if not outcome.found:
                self.limits.poll()
                raise Interrupted("time")
            counts = zip(entries, program.chosen(outcome), strict=True)
            chosen = [e for e, n in counts for _ in range(n)]
            found = self._linked(chosen, program.used_patterns(outcome), pooled)
            if found is not None:
                return outcome, (chosen, found)

    def _keep(
        self, pool: ColumnPool, entries: list[Entry], patterns: UsedPatterns | Laid
    ) -> None:
        if not unknown_of(entries):
            self._keep_fleet(
                place(pool.problem, pool.chunks, entries, patterns), final=False
            )


def _search(problem: Problem, limits: SearchLimits) -> Search:
    """The search that suits the problem: listed compositions, or prices."""
    from shardwright.search import linked
    from shardwright.search.by_prices import PricedSearch, applies

    alike = problem if problem.reach is None else replace(problem, reach=None)
    if applies(problem) and too_many(problem):
        return PricedSearch(alike, limits)
    if linked.applies(problem):
        return linked.LinkedSearch(problem, limits)
    return Search(alike, limits)
