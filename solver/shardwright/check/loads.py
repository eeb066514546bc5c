"""What a plan claims of its percentiles: the queueing model's word, held together.

The percentiles themselves are the model's claim (docs/cost-model.md, section 12);
what can be checked is that each target has one and that the loads share the requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from shardwright.check.case import Case, Rule
from shardwright.check.exact import RELATIVE_TOLERANCE, exact
from shardwright.check.figures import ReplicaFigures
from shardwright.check.report import RuleRow, at_most, equal
from shardwright.check.targets import TargetKey, key_of, percentile_targets
from shardwright.schema.plan import PoolRole, ReplicaLoad

RULE = "load_claim"
SHARES_TOLERANCE = Fraction(1, 10**6)
"""How far the loads of all replicas together may be off."""


def load_claim(case: Case) -> Iterator[RuleRow]:
    """one claim for each target on a percentile; load <= rate/(1000·Ō), together all"""
    for replica in case.figures.replicas:
        yield from _claims(case, replica)
        if replica.load is not None:
            yield _within_rate(case, replica, replica.load)
    yield from _shares(case)


def _claims(case: Case, replica: ReplicaFigures) -> Iterator[RuleRow]:
    """As many claims as targets, of the same metric and percentile."""
    targets = percentile_targets(case.instance, replica.role)
    asked = Counter(filter(None, map(key_of, targets)))
    claims = replica.load.percentiles if replica.load is not None else ()
    found = Counter((claim.metric, claim.percentile) for claim in claims)
    for words, surplus in (
        ("targets on a percentile without a claim are", asked.keys() - found.keys()),
        ("claims without a target are", (found - asked).keys()),
    ):
        if asked or found:
            detail = ", ".join(_name(key) for key in sorted(surplus))
            yield at_most(
                RULE, replica.label, words, len(surplus), 0, "claims", detail=detail
            )


def _name(key: TargetKey) -> str:
    return f"{key[0]} P{key[1]:g}"


def _within_rate(case: Case, replica: ReplicaFigures, load: ReplicaLoad) -> RuleRow:
    most = replica.rate_mtok_per_s / (1000 * case.figures.mix.mean_output)
    return at_most(
        RULE,
        replica.label,
        "requests served are",
        exact(load.request_rate_per_s),
        most,
        "requests/s",
        allowance=most * RELATIVE_TOLERANCE,
    )


def _shares(case: Case) -> Iterator[RuleRow]:
    """Every request is decoded once and prefilled once, as far as loads tell."""
    roles: tuple[PoolRole, ...] = ("mixed", "prefill", "decode")
    if not any(percentile_targets(case.instance, role) for role in roles):
        return
    mixed, prefill, decode = (_total(case, role) for role in roles)
    asked = case.instance.workload.request_rate_per_s
    for name, pool in (("decode", decode), ("prefill", prefill)):
        if asked is not None and mixed is not None and pool is not None:
            words = f"requests of mixed and {name} replicas are"
            yield _together(words, mixed + pool, exact(asked))
            break
    pools = any(replica.role != "mixed" for replica in case.figures.replicas)
    if pools and prefill is not None and decode is not None:
        yield _together("requests of prefill replicas are", prefill, decode)


def _total(case: Case, role: PoolRole) -> Fraction | None:
    """Requests/s of the role's replicas; None where nothing asks them for a load."""
    replicas = [r for r in case.figures.replicas if r.role == role]
    if replicas and not percentile_targets(case.instance, role):
        return None
    loads = [r.load for r in replicas if r.load is not None]
    return sum((exact(load.request_rate_per_s) for load in loads), Fraction(0))


def _together(words: str, found: Fraction, wanted: Fraction) -> RuleRow:
    allowance = wanted * SHARES_TOLERANCE
    return equal(RULE, "plan", words, found, wanted, "requests/s", allowance=allowance)


LOADS: tuple[Rule, ...] = (load_claim,)
