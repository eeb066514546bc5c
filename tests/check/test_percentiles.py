"""Targets on percentiles: what a plan must claim, and what is held against it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import ONE_STAGE, TWO_STAGES, Changes, instance, plan_for
from tests.check.builders import spoiled as changed_plan
from tests.check.right import FIGURES, broken
from tests.check.slow import ALONE, DECODE, PREFILL, dense

from shardwright.check import check
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

R0, R1 = "pools.0.replicas.0", "pools.0.replicas.1"
TARGETS: list[dict[str, Any]] = [
    {"metric": "ttft", "percentile": 99, "limit_ms": 300},
    {"metric": "tpot", "percentile": 50, "limit_ms": 20.5},
]
RATE = 1.5


def subject(*more: dict[str, Any], **changes: Any) -> Instance:
    given = {"workload.request_rate_per_s": RATE, **changes}
    return instance({**given, "slo": [*TARGETS, *more]})


def claim(metric: str, percentile: float, value: float) -> dict[str, Any]:
    return {"metric": metric, "percentile": percentile, "predicted_ms": value}


def load(rate: float, *claims: dict[str, Any]) -> dict[str, Any]:
    """A load with these claims; without any the right ones, at their limits."""
    right = [claim(t["metric"], t["percentile"], t["limit_ms"]) for t in TARGETS]
    return {
        "request_rate_per_s": rate,
        "utilisation": 0.5,
        "mean_batch": 2.0,
        "knife_edge": False,
        "percentiles": [*claims] or right,
    }


def plan_of(first: float = 1.0, second: float = 0.5) -> Plan:
    plan = plan_for(subject(), TWO_STAGES, ONE_STAGE)
    return changed_plan(plan, {f"{R0}.load": load(first), f"{R1}.load": load(second)})


PLAN = plan_of()


def found(changes: Changes, **of_instance: Any) -> set[str]:
    return broken(subject(**of_instance), changed_plan(PLAN, changes))


def test_the_right_plan_is_accepted() -> None:
    report = check(subject(), PLAN)
    report.raise_if_bad()
    rows = [row for row in report.rows if row.rule in ("ttft_limit", "tpot_limit")]
    assert {row.note for row in rows} == {"model-claimed"}
    assert [(row.rule, float(row.left), float(row.right)) for row in rows] == [
        ("tpot_limit", 20_500_000, 20_500_000),
        ("tpot_limit", 20_500_000, 20_500_000),
        ("ttft_limit", 300_000_000, 300_000_000),
        ("ttft_limit", 300_000_000, 300_000_000),
    ]
    assert rows[0].quantity == "P50 of time per output token is"


# --- load_claim -----------------------------------------------------------------------

TTFT, TPOT = claim("ttft", 99, 1.0), claim("tpot", 50, 1.0)


@pytest.mark.parametrize(
    "claims",
    [
        (TTFT,),
        (TTFT, claim("tpot", 51, 1.0)),
        (TTFT, claim("itl", 50, 1.0)),
        (TTFT, TPOT, claim("e2e", 50, 1.0)),
        (TTFT, TPOT, TPOT),
    ],
)
def test_one_claim_for_each_target(claims: tuple[dict[str, Any], ...]) -> None:
    assert found({f"{R1}.load": load(0.5, TTFT, TPOT)}) == set()
    assert found({f"{R1}.load": load(0.5, *claims)}) == {"load_claim"}


def test_missing_load() -> None:
    report = check(subject(), changed_plan(PLAN, {f"{R1}.load": None}))
    assert report.broken() == ("load_claim",)
    assert "tpot P50, ttft P99" in str(report.violations[0])


def test_load_without_targets() -> None:
    plain = instance({"slo": [{"metric": "ttft", "limit_ms": 1e6}]})
    assert broken(plain, plan_for(plain, TWO_STAGES, ONE_STAGE)) == set()
    assert broken(plain, PLAN) == {"load_claim"}


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (1.0, 0.5, True),
        (1.2, 0.3, True),
        (1.0, 0.5000014, True),
        (1.0, 0.500002, False),
        (1.0, 0.499998, False),
    ],
)
def test_loads_share_the_requests(first: float, second: float, holds: bool) -> None:
    rules = broken(subject(), plan_of(first, second))
    assert rules == (set() if holds else {"load_claim"})


def test_load_above_the_rate() -> None:
    # what a replica claims to serve bounds its load, however much it could
    first, second = (replica.law.rate_mtok_per_s for replica in FIGURES.replicas)
    rate = f"{R0}.latency.rate_mtok_per_s"
    assert first > 200_000
    assert found({rate: 200_000}) == set()
    assert found({rate: 199_999}) == {"load_claim"}
    assert second > 100_000


def test_without_a_request_rate_nothing_is_shared() -> None:
    free = instance({"slo": TARGETS})
    assert broken(free, plan_of(0.1, 0.7)) == set()


# --- rates ----------------------------------------------------------------------------


def test_rate_below_the_law() -> None:
    first = FIGURES.replicas[0].law.rate_mtok_per_s
    rate = f"{R0}.latency.rate_mtok_per_s"
    assert found({rate: first - 1}) == set()
    assert found({rate: first + 1}) == {"rate_claim"}
    mean = instance({"slo": [{"metric": "ttft", "limit_ms": 1e6}]})
    plan = plan_for(mean, TWO_STAGES)
    assert broken(mean, changed_plan(plan, {rate: first - 1})) == {"rate_claim"}


def test_what_is_claimed_is_what_is_served() -> None:
    rates = {f"{r}.latency.rate_mtok_per_s": 250_000 for r in (R0, R1)}
    report = check(subject(), changed_plan(PLAN, rates))
    report.raise_if_bad()
    assert report.figures.rate_mtok_per_s() == 500_000
    # 2.5 requests/s of 200 tokens
    for asked, rules in ((2.5, set()), (2.500001, {"request_rate"})):
        more = {**rates, f"{R0}.load": load(asked / 2), f"{R1}.load": load(asked / 2)}
        assert found(more, **{"workload.request_rate_per_s": asked}) <= rules | {
            "load_claim"
        }
    lost = {"limits.survive": [{"gpus": 1}]}
    assert found(rates, **lost, **{"workload.request_rate_per_s": RATE}) == {"survive"}


# --- limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "rules"),
    [
        ((TTFT, TPOT), set()),
        ((claim("ttft", 99, 300.0000001), TPOT), {"ttft_limit"}),
        ((TTFT, claim("tpot", 50, 20.6)), {"tpot_limit"}),
    ],
)
def test_claims_against_limits(
    claims: tuple[dict[str, Any], ...], rules: set[str]
) -> None:
    assert found({f"{R1}.load": load(0.5, *claims)}) == rules


def test_margin_of_claims() -> None:
    # 20.5 ms/(1 + 1/40) = 20 ms for TPOT; 300 ms for TTFT as they are
    margin = {"limits.latency_margin": 0.025}
    for value, rules in ((20.0, set()), (20.0000001, {"tpot_limit"})):
        loads = {
            f"{r}.load": load(rate, claim("ttft", 99, 300), claim("tpot", 50, value))
            for r, rate in ((R0, 1.0), (R1, 0.5))
        }
        assert found(loads, **margin) == rules


@pytest.mark.parametrize("metric", ["prefill", "itl", "e2e"])
def test_other_metrics(metric: str) -> None:
    target = {"metric": metric, "percentile": 90, "limit_ms": 7}
    asked = subject(target)
    assert broken(asked, PLAN) == {"load_claim"}
    for value, rules in ((7.0, set()), (7.1, {f"{metric}_limit"})):
        own = claim(metric, 90, value)
        loads = {
            f"{R0}.load": load(1.0, TTFT, TPOT, own),
            f"{R1}.load": load(0.5, TTFT, TPOT, own),
        }
        assert broken(asked, changed_plan(PLAN, loads)) == rules


def test_two_limits_for_one_percentile() -> None:
    tight = {**TARGETS[0], "limit_ms": 100}
    asked = subject(tight)
    assert broken(asked, PLAN) == {"ttft_limit"}
    loads = {
        f"{r}.load": load(rate, claim("ttft", 99, 100), TPOT)
        for r, rate in ((R0, 1.0), (R1, 0.5))
    }
    assert broken(asked, changed_plan(PLAN, loads)) == set()


def test_means_are_held_against_the_law() -> None:
    law = max(replica.law.tpot_ns for replica in FIGURES.replicas)
    target = {"metric": "tpot", "limit_ms": law / 1e6}
    assert broken(subject(target), PLAN) == set()
    tight = {**target, "limit_ms": (law - 1) / 1e6}
    assert broken(subject(tight), PLAN) == {"tpot_limit"}


# --- pools ----------------------------------------------------------------------------

SLOW_TARGETS = {
    "ttft": {"metric": "ttft", "percentile": 90, "limit_ms": 1e5},
    "tpot": {"metric": "tpot", "percentile": 90, "limit_ms": 1e4},
}


def pools(*metrics: str) -> Instance:
    slo = [SLOW_TARGETS[metric] for metric in metrics]
    changes = {"pools": "any", "slo": slo, "workload.request_rate_per_s": 0.2}
    return dense(changes)


def loads_of(asked: Instance, rates: tuple[float, float, float], *metrics: str) -> Plan:
    """Loads of mixed, prefill and decode, with claims for the metrics of each."""
    own = ({"ttft", "tpot"}, {"ttft"}, {"tpot"})
    changes: dict[str, Any] = {}
    for pool, (rate, roles) in enumerate(zip(rates, own, strict=True)):
        claims = [claim(m, 90, 1.0) for m in metrics if m in roles]
        given = load(rate, *claims) if claims else None
        changes[f"pools.{pool}.replicas.0.load"] = given
    return changed_plan(plan_for(asked, ALONE, PREFILL, DECODE), changes)


@pytest.mark.parametrize(
    ("metrics", "rates", "holds"),
    [
        (("ttft", "tpot"), (0.1, 0.1, 0.1), True),
        # more is prefilled than decoded
        (("ttft", "tpot"), (0.1, 0.11, 0.1), False),
        # not all requests are decoded
        (("ttft", "tpot"), (0.1, 0.09, 0.09), False),
        # prefill replicas have no targets on tpot, decode replicas none on ttft
        (("tpot",), (0.1, 0.0, 0.1), True),
        (("tpot",), (0.1, 0.0, 0.11), False),
        (("ttft",), (0.1, 0.1, 0.0), True),
        (("ttft",), (0.1, 0.11, 0.0), False),
    ],
)
def test_pools_share_the_requests(
    metrics: tuple[str, ...], rates: tuple[float, float, float], holds: bool
) -> None:
    asked = pools(*metrics)
    rules = broken(asked, loads_of(asked, rates, *metrics))
    assert rules == (set() if holds else {"load_claim"})


def test_rates_of_roles_without_targets_are_exact() -> None:
    asked = pools("ttft")
    plan = loads_of(asked, (0.1, 0.1, 0.0), "ttft")
    less = {"pools.2.replicas.0.latency.rate_mtok_per_s": 50_999}
    assert broken(asked, changed_plan(plan, less)) == {"rate_claim"}
    less = {"pools.1.replicas.0.latency.rate_mtok_per_s": 90_000}
    assert broken(asked, changed_plan(plan, less)) == set()
