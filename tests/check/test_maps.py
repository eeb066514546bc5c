"""Expert maps: their balance worked out on paper, and maps that break the rule."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from tests.check.builders import TWO_STAGES, Changes, instance, plan_for, spoiled
from tests.check.mixtures import FFN, ONE_ISLAND, mixture, sketch_of

from shardwright.check import Report, check
from shardwright.check.maps import own_balance
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.plan import ExpertMap

# Two layers of ten experts, and four GPUs with three slots each: experts 0 and 1 twice.
# Layer 0: shares 12/2 = 6, 4/2 = 2, others 2. GPUs 6 + 4, 6 + 4, 2 + 4, 2 + 4; mean 8:
# 10/8. Layer 1: ½ + 2 on each GPU, so 1. Balance (5/4 + 1)/2 = 9/8.
LOADS = {"tokens": [[12, 4, *[2] * 8], [1] * 10]}
ROW = [0, 2, 3, 0, 4, 5, 1, 6, 7, 1, 8, 9]
MAP: dict[str, Any] = {
    "ep": 4,
    "slots_per_gpu": 3,
    "balance": 1.125,
    "layers": [ROW, ROW],
}
KNOWN: Changes = {"workload.expert_loads": LOADS}
FOUR = sketch_of(ONE_ISLAND, 3)
SUBJECT = mixture(KNOWN)
PLAN = plan_for(SUBJECT, FOUR, maps=[MAP])

# One slot more: 16 slots for ten experts, six of them twice. R = 6.
MORE_ROW = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
# Layer 0: 6 + 2 + 1 + 1, 1 + 1 + 2 + 2, 2 + 2 + 6 + 2, 1 + 1 + 1 + 1; mean 8: 12/8.
# Layer 1: 2, 3, 3, 2; mean 5/2: 6/5. Balance (3/2 + 6/5)/2 = 27/20.
MORE = {**MAP, "slots_per_gpu": 4, "balance": 1.35, "layers": [MORE_ROW] * 2}


def report_of(
    changes: Changes, *maps: Changes, slots: int = 3, shape: Changes = ONE_ISLAND
) -> Report:
    """The report of a plan with these maps, its claims made from them."""
    subject = mixture(changes)
    return check(subject, plan_for(subject, sketch_of(shape, slots), maps=maps))


def map_of(entry: Changes) -> ExpertMap:
    return ExpertMap.model_validate_json(json.dumps(entry))


def decode_ns(report: Report) -> int:
    return report.figures.replicas[0].stages[0].decode.total_ns


@pytest.mark.parametrize(
    ("entry", "balance"), [(MAP, Fraction(9, 8)), (MORE, Fraction(27, 20))]
)
def test_balance(entry: Changes, balance: Fraction) -> None:
    assert own_balance(SUBJECT, map_of(entry)) == balance


def test_balance_is_beta() -> None:
    # test_mixtures.test_decode_time with β = 9/8 for 12/10: 2·96·(48·2/4)·β/5e5 µs
    report = check(SUBJECT, PLAN)
    report.raise_if_bad()
    layer = 907_223_200 - 11_059_200 + 10_368_000
    assert decode_ns(report) == 2 * layer + 10_488_080
    assert "expert_map" in {row.rule for row in report.rows}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "generic"])
def test_loads_let_every_engine_fill_its_slots(engine: str) -> None:
    shape = {"tp": 1, "attn_dp": 4, "moe_tp": 1, "ep": 4}
    changes = {**KNOWN, "engine": {"name": engine}}
    assert report_of(changes, MAP, shape=shape).broken() == ()
    assert report_of(changes, MORE, slots=4, shape=shape).broken() == ()
    # five slots make R = 10, more than two to a GPU less one
    row = [*range(5), *range(5, 10)] * 2
    five = {**MAP, "slots_per_gpu": 5, "balance": 1.25, "layers": [row, row]}
    report = report_of(changes, five, slots=5, shape=shape)
    assert "experts_divisible" in report.broken()


def test_too_few_slots() -> None:
    rules = report_of(KNOWN, slots=2).broken()
    assert rules == ("expert_slots", "experts_divisible", "expert_map")


def test_maps_of_other_slots_may_stand_beside() -> None:
    assert report_of(KNOWN, MAP, MORE).broken() == ()
    wrong = {**MORE, "balance": 1.0}
    assert report_of(KNOWN, MAP, wrong).broken() == ("expert_map",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # expert 9 is nowhere, 8 stands twice, on the last GPU both times
        ({"layers.0.11": 8}, "row 0 lacks expert 9"),
        ({"layers.1.11": 8}, "row 1 has expert 8 twice on GPU 3"),
        # one of the two slots of expert 0 goes to expert 2, on its own GPU
        ({"layers.0.0": 2}, "row 0 has expert 2 twice on GPU 0"),
        ({"layers.0.0": 10}, "row 0 has expert 10"),
        ({"layers.0": ROW[:-1]}, "row 0 has 11 slots"),
        ({"layers.0": [*ROW, 2]}, "row 0 has 13 slots"),
        ({"layers": [ROW]}, "rows (layers with experts) are 1 layer; must be 2 layer"),
        ({"layers": [ROW] * 3}, "are 3 layer; must be 2 layer"),
        ({"balance": 1.0}, "is 100 %; must be 112.5 %"),
        ({"balance": 1.125 * (1 + 2e-9)}, "balance (busiest GPU over the mean) is"),
    ],
)
def test_spoiled_map(changes: Changes, words: str) -> None:
    at_map = {f"expert_map.0.{path}": value for path, value in changes.items()}
    report = check(SUBJECT, spoiled(PLAN, at_map))
    assert report.broken() == ("expert_map",)
    assert any(words in str(violation) for violation in report.violations)


def test_balance_within_the_tolerance() -> None:
    close = {"expert_map.0.balance": 1.125 * (1 + 5e-10)}
    assert check(SUBJECT, spoiled(PLAN, close)).ok


def test_many_faults_are_cut_short() -> None:
    report = check(SUBJECT, spoiled(PLAN, {"expert_map.0.layers.0": [0] * 12}))
    text = next(str(v) for v in report.violations if "without a slot" in str(v))
    assert text.endswith("row 0 lacks expert 5 and 4 more")


def test_times_follow_from_a_true_balance() -> None:
    # The claims are made from 9/8, whatever balance the map states.
    report = report_of(KNOWN, {**MAP, "balance": 1.0})
    assert report.broken() == ("expert_map",)
    assert decode_ns(report) == decode_ns(check(SUBJECT, PLAN))


@pytest.mark.parametrize("maps", [None, [], [{**MAP, "ep": 2, "slots_per_gpu": 6}]])
def test_missing_map(maps: list[Any] | None) -> None:
    # β = 1 as of uniform routing: 9,216 µs of experts
    report = check(SUBJECT, plan_for(SUBJECT, FOUR, maps=maps))
    assert report.broken() == ("expert_map",)
    assert "for ep 4 with 3 slots: maps in the plan are 0" in str(report.violations[0])
    layer = 907_223_200 - 11_059_200 + 9_216_000
    assert decode_ns(report) == 2 * layer + 10_488_080


def test_one_map_for_each_use() -> None:
    assert report_of(KNOWN, MAP, MAP).broken() == ("expert_map",)


def test_no_map_without_loads() -> None:
    # and β stays 12/10
    report = report_of({}, MAP)
    assert report.broken() == ("expert_map",)
    assert decode_ns(report) == 2 * 907_223_200 + 10_488_080


def test_no_map_without_expert_parallelism() -> None:
    shape = {"tp": 2, "attn_dp": 2, "moe_tp": 4}
    assert report_of(KNOWN, slots=10, shape=shape).broken() == ()
    alone = {"ep": 1, "slots_per_gpu": 10, "balance": 1.0, "layers": [[*range(10)]] * 2}
    report = report_of(KNOWN, alone, slots=10, shape=shape)
    assert report.broken() == ("expert_map",)


def test_no_map_of_a_dense_model() -> None:
    subject = instance(KNOWN)
    assert check(subject, plan_for(subject, TWO_STAGES)).ok
    report = check(subject, plan_for(subject, TWO_STAGES, maps=[MAP]))
    assert report.broken() == ("expert_map",)


@pytest.mark.parametrize(
    "changes",
    [
        {"workload.expert_loads.tokens": LOADS["tokens"][:1]},
        {f"{FFN}.experts": 11},
    ],
)
def test_loads_of_another_model(changes: Changes) -> None:
    with pytest.raises(InvalidInstance, match="expert_loads"):
        report_of({**KNOWN, **changes}, MAP)
