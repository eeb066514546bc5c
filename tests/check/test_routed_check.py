"""The checker of routed results: a right answer passes, each fault is named."""

from __future__ import annotations

from typing import Any

import pytest
from tests.search.routed_cases import instance_of

from shardwright.check.routed import check_routed
from shardwright.planning.routed import solve_routed
from shardwright.schema.errors import CheckFailed
from shardwright.schema.result import Status
from shardwright.schema.routed import Route, RoutedInstance, RoutedResult


@pytest.fixture(scope="module")
def instance() -> RoutedInstance:
    return instance_of(
        {
            "name": "checked",
            "num_layers": 4,
            "throughput_by_layers": {"A": [9.0, 5.0, 2.0]},
            "stage_ms_by_layers": {"A": [1.0, 2.0, 3.0]},
            "nodes": [{"id": i, "type": "A"} for i in range(4)],
            "links": [
                *[["source", i, 99.0] for i in range(4)],
                *[[i, "sink", 99.0] for i in range(4)],
                *[[a, b, 7.0, 0.5] for a in range(4) for b in range(4) if a != b],
            ],
        }
    )


@pytest.fixture(scope="module")
def result(instance: RoutedInstance) -> RoutedResult:
    return solve_routed(instance, workers=1, time_limit_s=10)


def test_a_right_answer_passes(instance: RoutedInstance, result: RoutedResult) -> None:
    assert result.max_flow == 10.0
    assert result.expected_latency_ms == 4.5
    assert check_routed(instance, result).ok


def _routes(result: RoutedResult, rate: float) -> tuple[Route, ...]:
    return tuple(Route(nodes=r.nodes, tokens_per_s=rate) for r in result.routes)


def _first(result: RoutedResult) -> str:
    return next(iter(result.intervals))


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("flow", lambda r: {"max_flow": 9.5}),
        ("flow", lambda r: {"routes": _routes(r, 1.0)}),
        ("node_rate", lambda r: {"routes": _routes(r, 8.0), "max_flow": 16.0}),
        ("link_rate", lambda r: {"routes": _routes(r, 8.0), "max_flow": 16.0}),
        ("route", lambda r: {"intervals": {**r.intervals, _first(r): (1, 3)}}),
        ("interval", lambda r: {"intervals": {**r.intervals, "77": (0, 2)}}),
        ("interval", lambda r: {"intervals": {**r.intervals, _first(r): (3, 5)}}),
        ("interval", lambda r: {"intervals": {**r.intervals, _first(r): (2, 2)}}),
        ("memory", lambda r: {"intervals": {**r.intervals, _first(r): (0, 4)}}),
        ("depth", lambda r: {"max_depth": 3}),
        ("depth", lambda r: {"hop_by_hop_depth": 1}),
        ("depth", lambda r: {"max_stages": 1}),
        ("depth", lambda r: {"depths": ()}),
        ("latency", lambda r: {"expected_latency_ms": 4.4}),
        ("latency", lambda r: {"max_latency_ms": 4.0}),
        ("bound", lambda r: {"bound": 9.0, "status": Status.FEASIBLE}),
        ("status", lambda r: {"bound": 11.0}),
        ("status", lambda r: {"max_flow": None}),
        ("flow", lambda r: {"front": (r.front[0].model_copy(update={"max_flow": 9}),)}),
        ("depth", lambda r: {"front": (r.front[0].model_copy(update={"stages": 1}),)}),
    ],
)
def test_every_fault_is_named(
    instance: RoutedInstance, result: RoutedResult, rule: str, spoil: Any
) -> None:
    spoilt = result.model_copy(update=spoil(result))
    report = check_routed(instance, spoilt)
    assert rule in report.broken()
    with pytest.raises(CheckFailed, match=rule):
        report.raise_if_bad()
