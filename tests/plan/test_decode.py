"""Decoding: the plan document keeps every rule of the independent checker."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.plan.cases import design, instance, mixed_cluster, seed
from tests.plan.fleets import CASES

from shardwright.check import check
from shardwright.plan import decode, settle
from shardwright.problem import Fleet, PlacedReplica, compile_problem
from shardwright.schema.errors import SolverFailure
from shardwright.schema.plan import Plan

STRUCTURE_AND_CLAIMS = {
    "layers_covered",
    "operating_point",
    "shape_product",
    "rank_order",
    "gpu_available",
    "gpu_used_once",
    "gpu_type",
    "stage_inside_island",
    "memory_parts",
    "decode_time",
    "prefill_time",
    "tpot",
    "prefill_latency",
    "ttft",
    "rate_claim",
}


@pytest.mark.parametrize("name", CASES)
def test_the_checker_finds_every_claim_true(name: str) -> None:
    one, problem, fleet = CASES[name]()
    report = check(one, decode(one, problem, fleet, ""))
    assert not STRUCTURE_AND_CLAIMS & set(report.broken())
    assert {row.rule for row in report.rows} >= STRUCTURE_AND_CLAIMS


@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_of_the_settled_fleet(name: str) -> None:
    one, problem, fleet = CASES[name]()
    plan = decode(one, problem, fleet, "")
    settled = settle(problem, fleet)
    for replica, placed in zip(plan.replicas(), settled.replicas, strict=True):
        figures = problem.figures(placed.design)
        assert replica.latency.rate_mtok_per_s == figures.rate_mtok_per_s
        assert replica.latency.tpot_ns == figures.tpot_ns
        totals = tuple(stage.memory_bytes.total() for stage in replica.stages)
        assert totals == figures.memory_bytes


def test_the_seeds_own_plan_in_numbers() -> None:
    """17.1 GB of weights on inner and 18.2 GB on outer stages, not 17.5 everywhere."""
    one, problem, fleet = seed()
    (replica,) = decode(one, problem, fleet, "").replicas()
    weights = [round(s.memory_bytes.weights / 1e9, 1) for s in replica.stages]
    assert weights == [18.2, 17.1, 17.1, 18.2]
    ranks = [(g.node, g.gpu, g.rank) for s in replica.stages for g in s.gpus]
    assert ranks == [("node", i, i) for i in range(8)]


def test_the_same_fleet_in_any_order_gives_the_same_plan() -> None:
    one, problem, fleet = CASES["mixed"]()
    turned = Fleet(tuple(reversed(fleet.replicas)))
    assert decode(one, problem, fleet, "") == decode(one, problem, turned, "")


def test_a_hop_is_priced_as_the_islands_have_it() -> None:
    one = instance(cluster=mixed_cluster())
    problem = compile_problem(one)
    apart = design(problem, [("H100", 2, 40)] * 2, sequences=64, crossings=[True])

    def tpot(islands: tuple[int, ...]) -> int:
        homes = tuple((island,) for island in islands)
        plan = decode(one, problem, Fleet((PlacedReplica(apart, homes),)), "")
        assert check(one, plan).slack("tpot") == 0
        return plan.replicas()[0].latency.tpot_ns

    assert tpot((0, 0)) <= tpot((0, 1))


def test_memory_that_disagrees_with_the_tables_is_an_error() -> None:
    one, problem, fleet = seed()
    tables = replace(problem.tables, memory_role=problem.tables.memory_role + 1)
    with pytest.raises(SolverFailure, match="do not add up"):
        decode(one, replace(problem, tables=tables), fleet, "")


def test_a_plan_survives_its_own_json() -> None:
    one, problem, fleet = CASES["mixed"]()
    plan = decode(one, problem, fleet, "ab" * 32)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
