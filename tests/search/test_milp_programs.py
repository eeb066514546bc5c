"""The small MILP programs against brute force and against their CP-SAT twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from tests.generators import random_instance

from shardwright.formulations.cpsat import patterns as cpsat_patterns
from shardwright.formulations.cpsat.arcs import ReplicaArcs
from shardwright.formulations.cpsat.engine import run
from shardwright.formulations.milp import arcs, counts, patterns
from shardwright.formulations.milp.engine import Backend
from shardwright.problem import Problem, compile_problem
from shardwright.schema.errors import UnsupportedRule
from shardwright.search.base import SearchLimits
from shardwright.search.exhaustive import Count, DesignSearch
from shardwright.search.packing import Segments, Yard

SEEDS = range(0, 320, 4)
FEWEST = 20
"""Seeds that a program must really have been tried on."""


def limits() -> SearchLimits:
    """A clock of its own: limits count from the moment they are made."""
    return SearchLimits(time_limit_s=20, workers=1)


def roomy(seed: int) -> Problem | None:
    """A random problem with more islands than a replica needs, without imbalance."""
    problem = compile_problem(random_instance(seed))
    few = problem.islands[:2]
    bounds = replace(
        problem.bounds,
        memory_imbalance=None,
        compute_imbalance=None,
        max_gpus=None,
        spare_gpus=0,
        max_cost_micro_usd_per_hour=None,
        max_stages=min(problem.bounds.max_stages, 3),
    )
    islands = tuple(island for island in few for _ in range(3))
    classes = tuple(
        replace(k, free_gpus=sum(i.free for i in islands if i.gpu_class == n))
        for n, k in enumerate(problem.classes)
    )
    largest = {
        n: max((i.free for i in islands if i.gpu_class == n), default=0)
        for n in range(len(classes))
    }
    allowed = [u for u in problem.units if u.gpus <= largest[u.gpu_class]]
    if len(allowed) < len(problem.units):
        return None  # a unit fits no island that is left
    return replace(problem, islands=islands, classes=classes, bounds=bounds)


def segment_prices(problem: Problem, rng: Random) -> dict[tuple[int, int], int]:
    """Random prices that grow with the size of the segment."""
    prices: dict[tuple[int, int], int] = {}
    for (gpu_class, free), _ in problem.island_types.items():
        total = 0
        for size in range(1, free + 1):
            total += rng.randint(1, 50)
            prices.setdefault((gpu_class, size), total)
    return prices


def cheapest(designs: list[Segments], prices: dict[tuple[int, int], int]) -> int | None:
    """Least price over the designs, by definition."""
    return min((sum(prices[s] for s in segments) for segments in designs), default=None)


def priced(problem: Problem, rng: Random) -> Iterator[tuple[int, int, list[Segments]]]:
    """Points with a TPOT limit at one of their own values, and all designs in it."""
    search = DesignSearch(problem, Yard(problem), Count("designs", 10**6, limits()))
    for point in range(len(problem.points))[:3]:
        found = list(search.designs(point))
        if found:
            cap = rng.choice(found).tpot + rng.choice((-1, 0, 0))
            yield point, cap, [c.segments for c in found if c.tpot <= cap]


def problems() -> Iterator[tuple[Problem, Random]]:
    """Roomy problems with a source of numbers each."""
    for seed in SEEDS:
        problem = roomy(seed)
        if problem is not None:
            yield problem, Random(seed)


def test_arcs_find_the_least_price() -> None:
    tried = 0
    for problem, rng in problems():
        prices = segment_prices(problem, rng)
        for point, cap, designs in priced(problem, rng):
            least = arcs.least_price(problem, point, prices, limits(), tpot_ns=cap)
            assert least == cheapest(designs, prices)
            tried += 1
    assert tried >= FEWEST


@pytest.mark.parametrize("backend", ["highs", "cbc"])
def test_counts_find_the_least_price(backend: Backend) -> None:
    tried = 0
    for problem, rng in problems():
        try:
            counts.require_countable(problem)
        except UnsupportedRule:
            continue
        prices = segment_prices(problem, rng)
        for point, cap, designs in priced(problem, rng):
            least = counts.least_price(
                problem, point, prices, limits(), tpot_ns=cap, backend=backend
            )
            assert least == cheapest(designs, prices)
            tried += 1
    assert tried >= FEWEST


def test_arcs_agree_with_their_twin() -> None:
    """One part and a price per GPU: the CP-SAT program of the default solver."""
    tried = 0
    for problem, rng in problems():
        if len(problem.classes) != 1 or problem.bounds.split is not None:
            continue
        top = problem.max_stages * max(u.gpus for u in problem.units)
        prices = {(0, size): 7 * size for size in range(1, top + 1)}
        for point, cap, _ in priced(problem, rng):
            least = arcs.least_price(problem, point, prices, limits(), tpot_ns=cap)
            assert least == _price_by_cpsat(problem, point, cap)
            tried += 1
    assert tried >= FEWEST


def _price_by_cpsat(problem: Problem, point: int, cap: int) -> int | None:
    options = tuple((0, u) for u in range(len(problem.units)))
    found = []
    for stages in problem.stage_counts(point):
        twin = ReplicaArcs(
            problem,
            point,
            (0,),
            options,
            stages=stages,
            prices=(7,),
            tpot_cap_ns=cap,
        )
        found.append(run(twin.build()[0], limits(), workers=1).objective)
    return min((price for price in found if price is not None), default=None)


@pytest.mark.parametrize("backend", ["highs", "cbc"])
@pytest.mark.parametrize("goal", ["gpus", "cost", "throughput"])
def test_patterns_agree_with_their_twin(goal: str, backend: Backend) -> None:
    """Seed 60 asks for one unit of rate more than a replica has: CBC lets it pass."""
    tried, rows = 0, cpsat_patterns.FleetRows()
    for seed in SEEDS:
        problem = compile_problem(random_instance(seed))
        search = DesignSearch(problem, Yard(problem), Count("designs", 10**6, limits()))
        columns = [
            cpsat_patterns.Column(tuple(sorted(c.segments)), c.gpus, c.cost, c.rate)
            for c in search.columns()
        ]
        if not columns or problem.usable_gpus <= 0:
            continue
        model = cpsat_patterns.fleet_model(problem, columns, rows, goal)
        expected = run(model.model, limits(), workers=1).objective
        found = patterns.best_fleet(
            problem, columns, rows, goal, limits(), backend=backend
        )
        assert (found[0] if found else None) == expected
        tried += 1
    assert tried >= FEWEST
