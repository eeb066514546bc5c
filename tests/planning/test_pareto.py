"""Pareto fronts against direct solves."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from tests.planning.small import chat

import shardwright as sw
from shardwright.planning.pareto import pareto
from shardwright.planning.pareto_text import front_svg, front_text
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.workload import Grid


def limited(instance: Instance, gpus: int, **update: object) -> Instance:
    limits = instance.limits.model_copy(update={"max_gpus": gpus})
    free = instance.workload.model_copy(update={"request_rate_per_s": None})
    goals = {"objective": ("throughput", "gpus"), "workload": free, "limits": limits}
    return instance.model_copy(update={**goals, **update})


def four() -> Instance:
    """The service on at most four GPUs, with one operating point."""
    limits = chat().limits.model_copy(update={"max_gpus": 4})
    return chat(limits=limits, grid=Grid(prefill_chunk_tokens=(1024,)))


def test_every_number_of_gpus_has_its_largest_rate() -> None:
    front = pareto(four(), "gpus,rate", points=8)
    assert front.complete
    assert [int(point.y) for point in front.points] == [4, 3, 2, 1]
    for point in front.points:
        solution = sw.solve(limited(four(), int(point.y)))
        assert solution.plan is not None
        assert point.x == solution.plan.metrics["total"]["requests_per_s"]
        assert point.gap == 0


def test_throughput_per_gpu_is_the_best_over_all_sizes() -> None:
    front = pareto(four(), points=3)
    assert 2 <= len(front.points) <= 3
    loosest = front.points[0]
    best = 0.0
    for gpus in range(1, 5):
        solution = sw.solve(limited(four(), gpus))
        assert solution.plan is not None
        total = solution.plan.metrics["total"]
        best = max(best, total["output_tokens_per_s"] / total["gpus_used"])
    assert loosest.x == pytest.approx(best, rel=1e-12)
    users = [point.y for point in front.points]
    rates = [point.x for point in front.points]
    assert users == sorted(users)
    assert rates == sorted(rates, reverse=True)
    assert all(point.gap == 0 for point in front.points)


def test_a_front_is_a_table_a_document_and_a_drawing() -> None:
    front = pareto(chat(), "cost,tpot", points=3)
    text = front_text(front)
    assert max(map(len, text.splitlines())) <= 100
    document = front.document()
    assert document["axes"] == ["cost_usd_per_hour", "tpot_ms"]
    assert all(p["cost_usd_per_hour_bound"] for p in document["points"])
    drawing = ElementTree.fromstring(front_svg(front))
    circles = [e for e in drawing.iter() if e.tag.endswith("circle")]
    assert len(circles) == len(front.points)


def test_a_percentile_is_an_axis_at_a_request_rate() -> None:
    grid = Grid(sequences=(16,), prefill_chunk_tokens=(1024,))
    front = pareto(chat(grid=grid, fix=Fix(tp=1)), "gpus,ttft_p99", points=2)
    assert all(point.y > 0 and point.gap == 0 for point in front.points)
    assert front.points[0].x <= front.points[-1].x


@pytest.mark.parametrize(
    "axes",
    [
        "gpus",
        "gpus,gpus",
        "gpus,speed",
        "ttft,gpus",
        "throughput,ttft_p99",
        "rate,rate",
    ],
)
def test_axes_that_say_nothing_are_refused(axes: str) -> None:
    with pytest.raises(InvalidInstance, match="--front"):
        pareto(chat(), axes)


def test_a_cost_needs_a_rate_and_an_infeasible_instance_has_no_front() -> None:
    free = chat().workload.model_copy(update={"request_rate_per_s": None})
    with pytest.raises(InvalidInstance, match="request_rate_per_s"):
        pareto(chat(workload=free), "cost,tpot")
    tight = chat().slo[0].model_copy(update={"limit_ms": 0.001})
    front = pareto(chat(slo=(tight,)), "gpus,tpot")
    assert front.points == ()
    assert front.complete
    assert "no front" in front_text(front)
