"""The default solver where compositions are too many to list: see ``priced``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwright.formulations.cpsat.engine import run
from shardwright.formulations.cpsat.patterns import fleet_model
from shardwright.formulations.dp.pricing import Prices
from shardwright.formulations.dp.scan import Scan, Scanner
from shardwright.formulations.lp.patterns import segment_prices
from shardwright.search.columns import Entry
from shardwright.search.decomposition import Search
from shardwright.search.fleets import place
from shardwright.search.goals import sense
from shardwright.search.priced import (
    GoalPrices,
    PricedColumns,
    applies,
    goal_prices,
)

_TIGHT = 2e-4
_FIRST = 1e-3
_EXACT = 1e-10
_ROUNDS = 12
_COLUMNS = 300
_NEAR = 0.97
_POLISHED = 40


class NoPlan(Exception):
    """No fleet of the columns that prices brought; nothing is proven either way."""


__all__ = ["NoPlan", "PricedSearch", "applies"]


@dataclass
class PricedSearch(Search):
    """One lexicographic search over priced columns."""

    _columns: PricedColumns | None = None
    proof: tuple[GoalPrices, float] | None = None
    """Prices and ratio of the best bound."""

    @property
    def columns(self) -> PricedColumns:
        """The columns known."""
        if self._columns is None:
            self._columns = PricedColumns(self.problem)
        return self._columns

    def all_goals(self) -> None:
        """One goal after another, each within the values of the earlier ones.

        Without any plan by prices the compositions are listed after all.
        """
        try:
            self.by_prices()
        except NoPlan:
            super().all_goals()

    def by_prices(self) -> None:
        """All goals by prices. Raises NoPlan where no plan is found that way."""
        self.columns.add_uniform()
        self.limits.poll()
        for goal in self.problem.goals:
            self.open_bound = None
            if goal in ("throughput", "gpus", "cost"):
                self._goal(goal)
            else:
                self.bounds.append(None)

    def _goal(self, goal: str) -> None:
        self._fleet(goal, None)
        for turn in range(_ROUNDS):
            self.limits.poll()
            priced = self._prices(goal)
            if priced is None:
                break
            if self._round(goal, priced, turn):
                break
        self._settled(goal)

    def _round(self, goal: str, priced: GoalPrices, turn: int) -> bool:
        """Scan at the prices at hand; whether nothing is left to gain."""
        found = self._scan(priced.prices, 1 + self._slack(turn))
        proven = priced.bound(goal, found.ratio)
        if proven is not None and proven == self._best_of(goal, proven):
            self.proof = priced, found.ratio
        self._tighten(goal, priced.bound(goal, found.ratio))
        self.sizes["links"] = len(found.links)
        if self._done(goal):
            return True
        added = self.columns.add_found(found, priced.prices, _NEAR)
        self._polish(priced.prices)
        self._fleet(goal, priced.prices)
        return self._done(goal) or (turn > 1 and not added)

    def _best_of(self, goal: str, bound: int) -> int:
        """The better of a bound and the one at hand."""
        known = self.open_bound
        if known is None or sense(goal) * bound > sense(goal) * known:
            return bound
        return known

    def _slack(self, turn: int) -> float:
        """A first bound soon, then a tight one."""
        return (_FIRST, _TIGHT, _EXACT)[min(turn, 2)]

    def _scan(self, prices: Prices, rho: float) -> Scan:
        scanner = Scanner(prices, rho, self.limits.poll)
        found = Scan()
        for pricer in self.columns.pricers:
            found.add(scanner.run(pricer, self.columns.top(pricer)))
        return found

    def _polish(self, prices: Prices) -> None:
        """Exact splits of the columns that earn most of their price."""
        ranked = sorted(self.columns.entries.values(), key=lambda e: -_ratio(e, prices))
        for entry in ranked[:_POLISHED]:
            self.limits.poll()
            self.columns.polish(entry)

    def _prices(self, goal: str) -> GoalPrices | None:
        entries = list(self.columns.entries.values())
        if not entries:
            return None
        columns = [self.columns.column(e) for e in entries]
        duals = segment_prices(self.problem, columns, self.rows, goal)
        if duals is None:
            return None
        b, rows = self.problem.bounds, self.rows
        gpus = _known(self.problem.usable_gpus, rows.max_gpus)
        costs = _known(b.max_cost_micro_usd_per_hour, rows.max_cost)
        rates = _known(b.rate_mtok_per_s, rows.min_rate, 0)
        caps = (min(gpus), min(costs, default=None))
        return goal_prices(self.problem, duals, goal, max(rates), caps)

    def _fleet(self, goal: str, prices: Prices | None) -> None:
        """The pattern program over the best columns; keep a better plan."""
        entries = list(self.columns.entries.values())
        if prices is not None:
            entries.sort(key=lambda e: -_ratio(e, prices))
            entries = entries[:_COLUMNS]
        if not entries:
            return
        columns = [self.columns.column(e) for e in entries]
        program = fleet_model(self.problem, columns, self.rows, goal)
        outcome = run(program.model, self.limits)
        self.sizes["fleet_programs"] = self.sizes.get("fleet_programs", 0) + 1
        self.sizes["columns"] = len(self.columns.entries)
        if not outcome.found:
            return
        chosen = [
            e
            for e, n in zip(entries, program.chosen(outcome), strict=True)
            for _ in range(n)
        ]
        patterns = program.used_patterns(outcome)
        self._keep_fleet(
            place(self.problem, self.columns.chunks, chosen, patterns), final=False
        )

    def _done(self, goal: str) -> bool:
        index = len(self.bounds)
        if self.fleet is None or self.open_bound is None:
            return False
        if self.values[index] == self.open_bound:
            return True
        if self._within_gap(goal):
            self.gap_used = True
            return True
        return False

    def _settled(self, goal: str) -> None:
        if self.fleet is None:
            raise NoPlan
        value = self.values[len(self.bounds)]
        self.bounds.append(self.open_bound)
        names = {"gpus": "max_gpus", "cost": "max_cost", "throughput": "min_rate"}
        self.rows = replace(self.rows, **{names[goal]: value})


def _known(*limits: int | None) -> list[int]:
    return [x for x in limits if x is not None]


def _ratio(entry: Entry, prices: Prices) -> float:
    price = sum(prices.segment[k][z] for k, z in entry.composition.signature)
    return entry.rate_mtok_per_s / max(price, 1e-9)
