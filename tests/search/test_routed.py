"""Routed pipelines against every placement, and on the published suite."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.search.routed_cases import instance_of, placements, small

from shardwright.check.routed import check_routed
from shardwright.ingest.routed import load_routed
from shardwright.planning.routed import solve_routed
from shardwright.problem.routed import RoutedProblem, compile_routed
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits
from shardwright.search.routed import Point, RoutedSearch
from shardwright.search.routed_bounds import prove, work_bound
from shardwright.search.routed_flow import max_flow
from shardwright.search.routed_local import NOTHING, improve
from shardwright.search.routed_routes import Caps, capped_flow

ROUTED = Path(__file__).parents[2] / "instances" / "routed"


def best_of_all(problem: RoutedProblem, stages: int | None) -> int:
    """The most flow over every placement."""
    caps = Caps(stages)
    return max(capped_flow(problem, p, caps).value for p in placements(problem))


def answer(problem: RoutedProblem, stages: int | None, seconds: float = 0.5) -> Point:
    limits = SearchLimits(time_limit_s=seconds, workers=1)
    return RoutedSearch(problem, Caps(stages), limits).run(with_front=False).best


def test_value_and_bound_enclose_the_best_of_all_placements() -> None:
    answer(compile_routed(load_routed(ROUTED / "a100x4_llama30b.json")), None, 30)
    rng, feasible, infeasible, proven, equal = Random(5), 0, 0, 0, 0
    for _ in range(12):
        problem = compile_routed(instance_of(small(rng)))
        stages = rng.choice((None, None, 1, 2, 3))
        best = best_of_all(problem, stages)
        found = answer(problem, stages)
        assert found.found.value <= best <= found.bound, (problem, stages)
        if found.status is Status.INFEASIBLE:
            assert best == 0
        feasible, infeasible = feasible + (best > 0), infeasible + (best == 0)
        proven += found.proven
        equal += found.found.value == best
        print(found.found.value / 1e6, best / 1e6, found.bound / 1e6, found.status)
    print(f"{feasible} feasible, {infeasible} infeasible, {proven} proven")
    assert feasible >= 6
    assert infeasible >= 1
    assert proven >= 6
    assert equal >= 9


def test_bounds_hold_for_every_placement_of_random_regions() -> None:
    rng = Random(11)
    limits = SearchLimits(time_limit_s=30, workers=1)
    for _ in range(8):
        problem = compile_routed(instance_of(small(rng)))
        best = best_of_all(problem, None)
        upper = work_bound(problem, None)
        assert best <= prove(problem, best // 2, upper, None, limits) <= upper


@pytest.mark.parametrize(
    ("name", "flow", "stages"),
    [
        ("a100x4_llama30b", 1044.533345, 4),
        ("l4x8_llama30b", 252.649846, 6),
        ("quality10_llama30b", 286.587409, 10),
        ("single24_llama70b", 2045.641047, 24),
        ("geo24_llama70b_full", 1754.381889, 18),
    ],
)
def test_the_suite_is_solved_to_proof(name: str, flow: float, stages: int) -> None:
    problem = compile_routed(load_routed(ROUTED / f"{name}.json"))
    found = answer(problem, None, seconds=60)
    assert (found.found.value, found.bound) == (round(flow * 1e6),) * 2
    assert found.found.flow.stages <= stages


def test_a_cap_on_stages_holds_for_every_route_and_way() -> None:
    instance = load_routed(ROUTED / "quality10_llama30b.json")
    result = solve_routed(instance, max_stages=8, workers=1, time_limit_s=30)
    assert result.status is Status.OPTIMAL
    assert result.max_flow == 231.061907
    assert result.max_depth == result.hop_by_hop_depth == 8
    assert check_routed(instance, result).ok


def test_lanes_keep_the_flow_of_sixteen_stages_with_fifteen() -> None:
    instance = load_routed(ROUTED / "single24_llama70b.json")
    result = solve_routed(instance, max_stages=15, workers=1, time_limit_s=60)
    assert (result.status, result.max_flow) == (Status.OPTIMAL, 1754.381889)
    assert result.max_depth == 15
    assert max(len(route.nodes) for route in result.routes) == 15


def test_the_front_falls_with_the_stages() -> None:
    instance = load_routed(ROUTED / "quality10_llama30b.json")
    result = solve_routed(instance, workers=1, time_limit_s=30)
    shown = [(p.stages, p.max_flow) for p in result.front]
    assert shown[0] == (10, 286.587409)
    assert shown == sorted(set(shown), reverse=True)
    assert all(p.status is Status.OPTIMAL for p in result.front)


def test_infeasible_and_interrupted_are_results() -> None:
    instance = load_routed(ROUTED / "l4x8_llama30b.json")
    none = solve_routed(instance, max_stages=5, workers=1, time_limit_s=30)
    assert (none.status, none.max_flow, none.bound) == (Status.INFEASIBLE, None, 0.0)
    stopped = solve_routed(instance, stop=lambda: True)
    assert (stopped.status, stopped.stopped_by) == (Status.UNKNOWN, "user")
    assert stopped.bound > 252
    late = solve_routed(instance, time_limit_s=0)
    assert (late.status, late.stopped_by) == (Status.UNKNOWN, "time")


def test_what_was_found_survives_a_stop() -> None:
    instance = load_routed(ROUTED / "quality10_llama30b.json")
    asked = [0]

    def stop() -> bool:
        asked[0] += 1
        return asked[0] > 25

    result = solve_routed(instance, stop=stop, workers=1)
    assert result.stopped_by == "user"
    assert result.max_flow is not None
    assert result.bound >= result.max_flow


def test_a_cap_on_latency_is_kept_by_every_route() -> None:
    document = {
        "name": "timed",
        "num_layers": 2,
        "throughput_by_layers": {"A": [10.0, 4.0]},
        "nodes": [{"id": i, "type": "A"} for i in range(3)],
        "links": [
            *[["source", i, 99.0, 1.0] for i in range(3)],
            *[[i, "sink", 99.0, 1.0] for i in range(3)],
            *[[a, b, 99.0, 50.0] for a in range(3) for b in range(3) if a != b],
        ],
    }
    instance = instance_of(document)
    free = solve_routed(instance, workers=1, time_limit_s=5)
    assert free.max_flow == 14.0
    assert free.expected_latency_ms == pytest.approx((10 * 52 + 4 * 2) / 14)
    quick = solve_routed(instance, max_latency_ms=10, workers=1, time_limit_s=3)
    assert quick.max_flow == 12.0
    assert quick.expected_latency_ms == 2.0
    assert check_routed(instance, quick).ok


def test_local_search_never_loses() -> None:
    rng = Random(3)
    limits = SearchLimits(time_limit_s=20, workers=1)
    problem = compile_routed(instance_of(small(rng)))
    best = best_of_all(problem, None)
    found = improve(problem, NOTHING, Caps(), limits, 500, best)
    assert found.value <= best
    assert found.value == max_flow(problem, dict(found.placement)).value
