"""Fleets by prices: the walks against every column, the search against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from tests.agreement import agree
from tests.generators import instance_of, random_document
from tests.search.test_pricing import solved_pool

from shardwright.formulations.dp.fluid import fluid_price
from shardwright.formulations.dp.pricing import Prices
from shardwright.formulations.dp.scan import Scanner, least_price
from shardwright.formulations.lp.patterns import island_values, knapsack
from shardwright.problem import Problem, compile_problem
from shardwright.search import by_prices, decomposition, priced
from shardwright.search.base import SearchLimits
from shardwright.search.by_prices import NoPlan, PricedSearch
from shardwright.search.chunks import ChunkGroups
from shardwright.search.columns import Entry
from shardwright.search.priced import PricedColumns, applies

CASES = 40


@cache
def cases() -> tuple[tuple[Problem, tuple[Entry, ...]], ...]:
    """Tiny problems with all their columns, from consecutive seeds."""
    found: list[tuple[Problem, tuple[Entry, ...]]] = []
    seed = 0
    while len(found) < CASES:
        problem = compile_problem(instance_of(random_document(seed)))
        seed += 1
        if not problem.points or problem.usable_gpus < 1 or not _priceable(problem):
            continue
        pool = solved_pool(problem)
        entries = tuple(e for es in pool.by_signature.values() for e in es)
        found.append((problem, entries))
    return tuple(found)


def _priceable(problem: Problem) -> bool:
    goals = replace(problem, goals=("throughput",))
    bounds = replace(goals.bounds, replicas=None)
    return applies(replace(goals, bounds=bounds))


def _prices(problem: Problem, seed: int) -> Prices:
    """Any prices per class and size: neither linear nor monotone."""
    rng = Random(seed)
    room = max(island.free for island in problem.islands)
    rows = [
        (0.0, *(rng.randint(1, 9) * 1e3 * z for z in range(1, room + 1)))
        for _ in problem.classes
    ]
    return Prices(tuple(rows))


def _price(prices: Prices, entry: Entry) -> float:
    return sum(prices.segment[k][z] for k, z in entry.composition.signature)


def _bounds(
    problem: Problem, prices: Prices, cap_ns: int, linear: bool
) -> Iterator[float]:
    for pricer in PricedColumns(problem).pricers:
        n = pricer.at.size
        theta = np.full(n, float(cap_ns))
        far = np.full(n, np.inf)
        start = np.zeros(n)
        found = least_price(pricer, prices, theta, start, far, linear=linear)
        yield float(found.value.min(initial=np.inf))


def test_no_design_is_cheaper_than_the_walks_say() -> None:
    """Lower bounds, and the segment walk equals the optimum nearly always."""
    equal = feasible = infeasible = 0
    for number, (problem, entries) in enumerate(cases()):
        rng, prices = Random(number), _prices(problem, number)
        known = sorted({e.tpot_ns for e in entries}) or [10**6]
        cap = rng.choice(known) + rng.choice((-1, 0, 0, known[0] // 3))
        best = min((_price(prices, e) for e in entries if e.tpot_ns <= cap), default=0)
        walked = min(_bounds(problem, prices, cap, False), default=np.inf)
        assert min(_bounds(problem, prices, cap, True), default=np.inf) <= (
            walked + 1e-6 * abs(walked)
        )
        feasible += best > 0
        infeasible += best == 0
        if best:
            assert walked <= best * (1 + 1e-9), number
            equal += walked >= best * (1 - 1e-9)
    assert feasible >= CASES / 2
    assert infeasible >= 3
    assert equal >= 0.6 * feasible


def test_no_design_is_cheaper_than_cut_stages() -> None:
    """The fluid price, at caps that columns just keep, and far above them."""
    compared = 0
    for number, (problem, entries) in enumerate(cases()):
        prices, tpots = _prices(problem, number), sorted({e.tpot_ns for e in entries})
        chunks = ChunkGroups(problem)
        for pricer in PricedColumns(problem).pricers:
            for cap in {*tpots[:3], *tpots[-1:], *(10 * t for t in tpots[:1])}:
                theta = np.full(pricer.at.size, float(cap))
                found = fluid_price(pricer, prices, theta)
                for i, at in enumerate(pricer.at.tolist()):
                    least = min(
                        (
                            _price(prices, e)
                            for e in entries
                            if e.tpot_ns <= cap
                            and chunks.by_point[e.point] == at
                            and {u for p in e.composition.parts for u in p.units}
                            <= set(pricer.units)
                        ),
                        default=np.inf,
                    )
                    assert found[i] <= least * (1 + 1e-9), number
                    compared += least < np.inf
    assert compared > 3 * CASES


@pytest.mark.parametrize("rho", [1 + 1e-9, 1.01])
def test_no_design_earns_more_than_the_ratio(rho: float) -> None:
    for number, (problem, entries) in enumerate(cases()):
        prices, columns = _prices(problem, number), PricedColumns(problem)
        scanner = Scanner(prices, rho)
        ratio = max(
            (scanner.run(p, columns.top(p)).ratio for p in columns.pricers), default=0.0
        )
        earned = [e.rate_mtok_per_s / _price(prices, e) for e in entries]
        assert max(earned, default=0.0) <= ratio * (1 + 1e-9), number


def test_designs_met_are_true_designs() -> None:
    """Each becomes a column of its own signature, at no more than its rate."""
    added = 0
    for number, (problem, entries) in enumerate(cases()):
        columns = PricedColumns(problem)
        prices = _prices(problem, number)
        best: dict[object, int] = {}
        for entry in entries:
            key = entry.composition.signature
            best[key] = max(best.get(key, 0), entry.rate_mtok_per_s)
        for pricer in columns.pricers:
            found = Scanner(prices, 1.01).run(pricer, columns.top(pricer))
            added += columns.add_found(found, prices, 0.0)
        for key, mine in columns.entries.items():
            assert mine.rate_mtok_per_s <= best[key], number
    assert added > CASES


def test_knapsacks_value_islands() -> None:
    assert knapsack([0.0, 1.0, 3.0, 2.0], 5) == [0.0, 1.0, 3.0, 4.0, 6.0, 7.0]
    problem = cases()[0][0]
    values = island_values(problem, [[0.0, 2.0]] * len(problem.classes))
    assert all(value == 2.0 * free for (_, free), value in values.items())


def test_search_by_prices_claims_nothing_false(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every problem that it covers counts as too large to list."""
    monkeypatch.setattr(decomposition, "too_many", lambda problem: True)
    used: list[bool] = []
    covers = priced.applies

    def noted(problem: Problem) -> bool:
        used.append(covers(problem))
        return used[-1]

    monkeypatch.setattr(by_prices, "applies", noted)
    verdicts = [agree(seed, ["default"], 20) for seed in range(90)]
    assert not {v.seed: v.complaints for v in verdicts if v.complaints}
    mine = [v for v, priced_now in zip(verdicts, used, strict=True) if priced_now]
    assert sum(v.feasible for v in mine) >= 6
    assert sum(not v.feasible for v in mine) >= 3


def test_a_small_fleet_is_proven_by_prices() -> None:
    """Where the pattern program is integral, value and bound meet."""
    proven = 0
    for problem, _ in cases()[:16]:
        plain = replace(problem, goals=("throughput",))
        free = replace(plain.bounds, rate_mtok_per_s=None, replicas=None)
        search = PricedSearch(replace(plain, bounds=free), SearchLimits(workers=1))
        with suppress(NoPlan):
            search.by_prices()
        if search.fleet is not None and search.bounds:
            assert search.bounds[0] is None or search.values[0] <= search.bounds[0]
            proven += search.bounds[0] == search.values[0]
    assert proven >= 3
