"""Limits, goals, fixed decisions and grids at their very edges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.check.builders import (
    ONE_STAGE,
    TWO_STAGES,
    Sketch,
    instance,
    plan_for,
    spoiled,
)
from tests.check.right import (
    FIGURES,
    LATENCY,
    NEXT,
    PLAN,
    STAGE,
    SUBJECT,
    broken,
)

from shardwright.check import Report, check
from shardwright.check.figures import Figures
from shardwright.schema.result import ObjectiveValue

# --- limits ---------------------------------------------------------------------------


def limit_case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of the instance that the right plan just keeps, and just breaks."""
    law = FIGURES.replicas[0].law
    first, second = (replica.law for replica in FIGURES.replicas)
    total = first.rate_mtok_per_s + second.rate_mtok_per_s
    numbers: dict[str, tuple[Any, Any]] = {
        "workload.max_batch": (16, 15),
        "limits.max_pipeline_stages": (2, 1),
        "limits.max_tensor_parallel": (2, 1),
        "limits.spare_gpus": (4, 5),
        "limits.max_gpus": (6, 5),
        "limits.max_cost_usd_per_hour": (15, 14.999999),
        "workload.request_rate_per_s": (total / 200_000, (total + 1) / 200_000),
    }
    for metric, value in (
        ("tpot", max(first.tpot_ns, second.tpot_ns)),
        ("itl", max(first.tpot_ns, second.tpot_ns)),
        ("prefill", max(first.prefill_ns, second.prefill_ns)),
        ("ttft", max(first.ttft_ns, second.ttft_ns)),
        ("e2e", max(first.e2e_ns, second.e2e_ns)),
    ):
        numbers[f"slo {metric}"] = (value, value - 1)
    assert law is first
    good, bad = numbers[name]
    if name.startswith("slo "):
        return _target(name[4:], good), _target(name[4:], bad)
    return {name: good}, {name: bad}


def _target(metric: str, limit_ns: float) -> dict[str, Any]:
    return {"slo": [{"metric": metric, "limit_ms": limit_ns / 1e6}]}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("workload.max_batch", "batch_limit"),
        ("limits.max_pipeline_stages", "max_pipeline_stages"),
        ("limits.max_tensor_parallel", "max_tensor_parallel"),
        ("limits.spare_gpus", "spare_gpus"),
        ("limits.max_gpus", "max_gpus"),
        ("limits.max_cost_usd_per_hour", "max_cost_usd_per_hour"),
        ("workload.request_rate_per_s", "request_rate"),
        ("slo tpot", "tpot_limit"),
        ("slo itl", "itl_limit"),
        ("slo prefill", "prefill_limit"),
        ("slo ttft", "ttft_limit"),
        ("slo e2e", "e2e_limit"),
    ],
)
def test_limit_at_its_edge(name: str, rule: str) -> None:
    good, bad = limit_case(name)
    kept = check(instance(good), PLAN)
    assert kept.ok
    assert kept.slack(rule) == 0
    missed = check(instance(bad), PLAN)
    assert missed.broken() == (rule,)
    assert missed.slack(rule) in (-1, missed.violations[0].slack)


def test_memory_one_byte_over() -> None:
    stages = [stage for replica in FIGURES.replicas for stage in replica.stages]
    most = max(stage.memory.total() for stage in stages)
    fraction = {"limits.memory_fraction": 1.0}
    fits = {**fraction, "cluster.gpu_types.big.memory": f"{most} B"}
    assert broken(instance(fits), PLAN) == set()
    over = {**fraction, "cluster.gpu_types.big.memory": f"{most - 1} B"}
    report = check(instance(over), PLAN)
    assert report.broken() == ("memory_fits",)
    fullest = [stage.label for stage in stages if stage.memory.total() == most]
    assert [v.entity for v in report.violations] == fullest
    assert report.slack("memory_fits") == -1
    # 17/20 of the memory, rounded down
    share = {"cluster.gpu_types.big.memory": f"{-(-most * 20 // 17)} B"}
    assert broken(instance(share), PLAN) == set()
    share = {"cluster.gpu_types.big.memory": f"{-(-most * 20 // 17) - 1} B"}
    assert broken(instance(share), PLAN) == {"memory_fits"}


def test_chunk_too_small() -> None:
    # m = 8, c = 40 prompt tokens in balance
    assert (
        broken(SUBJECT, plan_for(SUBJECT, Sketch(TWO_STAGES.stages, chunk=40))) == set()
    )
    plan = plan_for(SUBJECT, Sketch(TWO_STAGES.stages, chunk=39))
    assert broken(SUBJECT, plan) == {"chunk_feeds_batch"}


def test_chunk_beyond_the_context() -> None:
    sketch = Sketch(TWO_STAGES.stages, chunk=4096)
    assert broken(SUBJECT, plan_for(SUBJECT, sketch)) == set()
    sketch = Sketch(TWO_STAGES.stages, chunk=4097)
    assert broken(SUBJECT, plan_for(SUBJECT, sketch)) == {"chunk_limit"}


def test_more_micro_batches_than_sequences() -> None:
    sketch = Sketch(TWO_STAGES.stages, sequences=1, micro_batches=2)
    assert broken(SUBJECT, plan_for(SUBJECT, sketch)) == {"operating_point"}


SKEWED = Sketch([(0, 6, "big", "a-0", (0, 1)), (6, 8, "big", "a-0", (2, 3))])


@pytest.mark.parametrize("rule", ["memory_imbalance", "compute_imbalance"])
def test_imbalance(rule: str) -> None:
    plan = plan_for(SUBJECT, SKEWED, ONE_STAGE)
    excess = float(getattr(check(SUBJECT, plan).figures.replicas[0], rule)())
    assert excess > 0
    assert broken(instance({f"limits.{rule}": excess * 1.000001}), plan) == set()
    report = check(instance({f"limits.{rule}": excess * 0.999999}), plan)
    assert report.broken() == (rule,)
    assert [v.entity for v in report.violations] == ["replica 0"]


def test_communication_share() -> None:
    plan = plan_for(SUBJECT, TWO_STAGES)
    share = float(FIGURES.replicas[0].communication_share())
    assert (
        broken(instance({"limits.communication_share": share + 1e-12}), plan) == set()
    )
    report = check(instance({"limits.communication_share": share * 0.999}), plan)
    assert report.broken() == ("communication_share",)
    # 4 + 1 terms a stage, a hop and the return: 12 ns are within rounding, 13 are not
    step = 1 / FIGURES.replicas[0].law.pass_ns
    near = instance({"limits.communication_share": share - 11.9 * step})
    assert broken(near, plan) == set()
    far = instance({"limits.communication_share": share - 12.1 * step})
    assert broken(far, plan) == {"communication_share"}


def test_no_communication_needs_no_allowance() -> None:
    sketch = Sketch([(0, 8, "big", "a-0", (0,))], micro_batches=1)
    subject = instance({"limits.communication_share": 1e-6})
    report = check(subject, plan_for(subject, sketch))
    assert report.ok
    assert report.slack("communication_share") == pytest.approx(1e-6)


@pytest.mark.parametrize("metric", ["tpot", "itl", "ttft", "prefill", "e2e"])
def test_latency_margin(metric: str) -> None:
    # predicted·1.25 <= limit, for the time of a token alone
    times = [getattr(r.law, FIELDS[metric]) for r in FIGURES.replicas]
    factor = 1.25 if metric in ("tpot", "itl") else 1.0
    limit = max(times) * factor
    margin = {"limits.latency_margin": 0.25}
    assert broken(instance({**margin, **_target(metric, limit)}), PLAN) == set()
    less = instance({**margin, **_target(metric, limit - 0.5)})
    assert broken(less, PLAN) == {f"{metric}_limit"}


FIELDS = {
    "tpot": "tpot_ns",
    "itl": "tpot_ns",
    "ttft": "ttft_ns",
    "prefill": "prefill_ns",
    "e2e": "e2e_ns",
}


def test_cost_without_a_price() -> None:
    changes = {
        "cluster.gpu_types.big.price_usd_per_hour": None,
        "limits.max_cost_usd_per_hour": 1000,
    }
    report = check(instance(changes), PLAN)
    assert report.broken() == ("max_cost_usd_per_hour",)
    assert "no price_usd_per_hour for big" in report.violations[0].message


def test_prices_round_up() -> None:
    changes = {"cluster.gpu_types.big.price_usd_per_hour": 0.0000011}
    assert check(instance(changes), PLAN).figures.cost_micro_usd_per_hour == 12


# --- objective, fix, grid -------------------------------------------------------------


def goal(name: str, value: float | None) -> ObjectiveValue:
    return ObjectiveValue(name=name, unit="", value=value, bound=None)


def goal_values(figures: Figures) -> dict[str, float]:
    return {
        "gpus": 6.0,
        "cost": 15.0,
        "throughput": figures.rate_mtok_per_s() / 1000,
        "tpot": max(r.law.tpot_ns for r in figures.replicas) / 1e6,
        "ttft": max(r.law.ttft_ns for r in figures.replicas) / 1e6,
    }


@pytest.mark.parametrize(("name", "value"), goal_values(FIGURES).items())
def test_objective_value(name: str, value: float) -> None:
    assert broken(SUBJECT, PLAN, goal(name, value)) == set()
    assert broken(SUBJECT, PLAN, goal(name, value * (1 + 1e-10))) == set()
    for off in (1 + 1e-8, 1 - 1e-8, 2.0):
        assert broken(SUBJECT, PLAN, goal(name, value * off)) == {"objective_value"}


def test_goals_that_cannot_be_checked() -> None:
    assert broken(SUBJECT, PLAN, goal("gpus", None)) == set()
    assert broken(SUBJECT, PLAN, goal("beauty", 0.0)) == {"objective_value"}
    unpriced = instance({"cluster.gpu_types.big.price_usd_per_hour": None})
    assert broken(unpriced, PLAN, goal("cost", 0.0)) == {"objective_value"}


FIXED = [
    ("tp", 2, 1),
    ("pp", 2, 1),
    ("dp", 1, 2),
    ("layers", [4, 4], [3, 5]),
    ("layers", [4, 4], [4, 3, 1]),
    ("sequences", 16, 17),
    ("prefill_chunk_tokens", 512, 256),
    ("micro_batches", 2, 3),
]


@pytest.mark.parametrize(("name", "good", "bad"), FIXED)
def test_fix(name: str, good: Any, bad: Any) -> None:
    plan = plan_for(SUBJECT, TWO_STAGES)
    assert broken(instance({f"fix.{name}": good}), plan) == set()
    assert broken(instance({f"fix.{name}": bad}), plan) == {"fix"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("sequences", [8, 16, 32], [8, 32]),
        ("prefill_chunk_tokens", [512], [256, 1024]),
        ("micro_batches", [1, 2], [1, 3]),
    ],
)
def test_grid(name: str, good: list[int], bad: list[int]) -> None:
    plan = plan_for(SUBJECT, TWO_STAGES)
    assert broken(instance({f"grid.{name}": good}), plan) == set()
    assert broken(instance({f"grid.{name}": bad}), plan) == {"grid"}


def test_grid_of_micro_batches_holds_beside_the_engines_rule() -> None:
    # two stages need two micro-batches, which the grid does not have; one has both
    changes = {"engine.name": "vllm", "grid.micro_batches": [1, 4]}
    subject = instance(changes)
    assert broken(subject, plan_for(subject, TWO_STAGES)) == {"grid"}
    four = Sketch(TWO_STAGES.stages, micro_batches=4)
    assert broken(subject, plan_for(subject, four)) == {"micro_batches_equal_stages"}
    assert broken(subject, plan_for(subject, ONE_STAGE)) == set()


def test_all_violations_are_listed() -> None:
    subject = instance({"workload.max_batch": 15, "limits.max_gpus": 5})
    plan = spoiled(PLAN, {f"{STAGE}.memory_bytes.weights": 0})
    report: Report = check(subject, plan)
    assert [(v.rule, v.entity) for v in report.violations] == [
        ("batch_limit", "replica 0"),
        ("batch_limit", "replica 1"),
        ("max_gpus", "plan"),
        ("memory_parts", "replica 0 stage 0"),
    ]
    assert json.loads(json.dumps(report.as_dict()))["ok"] is False


# --- edges ----------------------------------------------------------------------------


def test_gpu_indices_run_from_zero() -> None:
    report = check(SUBJECT, spoiled(PLAN, {f"{NEXT}.gpus.1.gpu": 4}))
    assert report.broken() == ("gpu_exists",)


def test_rank_order_says_which_rank_is_due() -> None:
    report = check(SUBJECT, spoiled(PLAN, {f"{NEXT}.gpus.1.rank": 7}))
    assert "a-0/3 has rank 7, not 3" in report.violations[0].message


def test_withheld_gpus_are_not_available() -> None:
    # Two nodes of 4 and one of 2; GPU 3 is reserved and failed, GPU 2 failed.
    changes = {"cluster.nodes.0.reserved": [3], "cluster.nodes.0.failed": [2, 3]}
    subject = instance(changes)
    plan = plan_for(subject, ONE_STAGE)
    assert check(subject, plan).figures.gpus_available == 2 * (4 - 2) + 2
    assert check(subject, plan).slack("spare_gpus") == 4


def test_requested_rate_rounds_up_and_latency_limits_round_down() -> None:
    total = FIGURES.rate_mtok_per_s()
    # 0.4 of a thousandth more than there is needs a whole one more
    asked = {"workload.request_rate_per_s": (total + 0.4) / 200_000}
    assert broken(instance(asked), PLAN) == {"request_rate"}
    tpot = max(replica.law.tpot_ns for replica in FIGURES.replicas)
    slo = {"slo": [{"metric": "tpot", "limit_ms": (tpot - 0.4) / 1e6}]}
    assert broken(instance(slo), PLAN) == {"tpot_limit"}


def test_hops_between_types_take_the_slower_side() -> None:
    # m = 6, c = 30, hidden 256: payload 2·36·256·2 bytes
    stages = [
        (0, 2, "big", "a-0", (0,)),
        (2, 4, "big", "a-1", (0,)),
        (4, 8, "small", "b", (0,)),
    ]
    plan = plan_for(SUBJECT, Sketch(stages, sequences=18, micro_batches=3))
    figures = check(SUBJECT, plan).figures
    # 36,864 B: 15,000 + 36,864/25e9 s, then 20,000 + 36,864/12.5e9 s; return 20,000
    assert figures.replicas[0].hops.decode_ns == (16_475, 22_950)
    assert figures.replicas[0].hops.return_ns == 20_000
    # 2·2,500,000 + 1,100,000 micro-USD
    assert figures.cost_micro_usd_per_hour == 6_100_000


def test_unknown_type_takes_the_figures_of_its_node() -> None:
    stages = [(0, 8, "small", "b", (0, 1))]
    right = plan_for(SUBJECT, Sketch(stages, micro_batches=1))
    renamed = spoiled(right, {f"{STAGE}.gpu_type": "huge"})
    assert broken(SUBJECT, renamed) == {"gpu_type"}


def test_limits_follow_the_claims_that_stand() -> None:
    # S binds; the claimed Θ is 1 ns below the own one, within the hop's allowance.
    changes = {"cluster.gpu_types.big.calibration.network_latency_us": 5000}
    plan = plan_for(instance(changes), TWO_STAGES)
    law = check(instance(changes), plan).figures.replicas[0].law
    theta = law.tpot_ns - 1
    latency = {
        "tpot_ns": theta,
        "prefill_ns": law.prefill_ns,
        "ttft_ns": -(-theta // 4) + law.prefill_ns,
        "rate_mtok_per_s": 16 * 10**12 // theta,
    }
    slo = [{"metric": "tpot", "limit_ms": theta / 1e6}]
    plan = spoiled(plan, {LATENCY: latency})
    assert broken(instance({**changes, "slo": slo}), plan) == set()


def test_gpus_without_a_price_count_nothing() -> None:
    changes = {"cluster.gpu_types.big.price_usd_per_hour": None}
    figures = check(instance(changes), PLAN).figures
    assert figures.cost_micro_usd_per_hour == 0
    assert figures.unpriced_types == ("big",)
