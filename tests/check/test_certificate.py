"""Certificates: what they prove is true, spoiled ones no more, wrong plans fail."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from random import Random

import pytest
from tests.generators import instance_of, random_document

from shardwright.check import check
from shardwright.check.certificate import verify
from shardwright.check.certificate_tables import NotCovered, PointTables
from shardwright.check.certificate_walks import NONE, lower_bound
from shardwright.check.certified import Certified, certified
from shardwright.ingest import instance_sha256
from shardwright.plan.decode import decode
from shardwright.planning.certify import certify
from shardwright.problem import Problem, compile_problem
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import InvalidInstance, UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome

WANTED = 12


@cache
def proven() -> tuple[tuple[Instance, Problem, SearchOutcome, Certificate], ...]:
    """Tiny instances with the exhaustive optimum and a certificate."""
    found = []
    for seed in range(400):
        document = random_document(seed)
        document["objective"] = ["throughput"]
        slo = document.setdefault("slo", [])
        slo.append({"metric": "tpot", "percentile": "mean", "limit_ms": 50})
        instance = instance_of(document)
        limits = SearchLimits(time_limit_s=20, workers=1)
        with suppress(UnsupportedRule):
            certificate = certify(instance, limits)
            problem = compile_problem(instance)
            best = solver("exhaustive").solve(problem, limits)
            if best.status is Status.OPTIMAL:
                found.append((instance, problem, best, certificate))
        if len(found) == WANTED:
            return tuple(found)
    raise AssertionError(f"{len(found)} instances with certificates")


def test_no_plan_beats_the_certified_bound() -> None:
    tight = 0
    for instance, _, best, certificate in proven():
        proof = verify(instance, certificate)
        assert proof.bound is not None
        assert proof.bound >= best.values[0]
        tight += proof.bound <= 1.001 * best.values[0]
    assert tight >= WANTED / 3


def test_a_plan_is_certified_and_a_better_one_refuted() -> None:
    for instance, problem, best, certificate in proven():
        assert best.fleet is not None
        plan = decode(instance, problem, best.fleet, instance_sha256(instance))
        report = check(instance, plan)
        answer = certified(instance, report, certificate)
        assert answer.accepted, answer.text()
        bound = answer.proof.bound or 0
        wrong = Certified(bound + 1, answer.proof)
        assert wrong.refuted
        assert "not of this plan" in wrong.text()


def test_spoiled_certificates_prove_nothing_false() -> None:
    """Lower prices, other multipliers, no slack: the bound stays true, or grows."""
    rng, weaker = Random(1), 0
    for instance, _, best, certificate in proven():
        before = verify(instance, certificate)
        prices = {
            name: tuple(p * rng.randint(1, 9) // 10 for p in row)
            for name, row in certificate.prices.items()
        }
        chains = tuple(
            (*c[:2], *(rng.randint(0, 2 * link + 2) for link in c[2:]))
            for c in certificate.chains
        )
        for change in ({"prices": prices}, {"chains": chains}, {"slack_ppb": 0}):
            spoiled = certificate.model_copy(update=change)
            proof = verify(instance, spoiled)
            assert proof.bound is not None
            assert proof.bound >= best.values[0]
            weaker += proof.bound > (before.bound or 0)
    assert weaker >= WANTED / 2


def test_points_left_out_leave_the_claim_open() -> None:
    instance, _, _, certificate = proven()[0]
    m, q = certificate.chains[-1][:2]
    short = certificate.model_copy(update={"chains": certificate.chains[:-1]})
    proof = verify(instance, short, {q: (m,)}, certificate.prefill_chunk_tokens)
    assert (proof.bound, proof.missing) == (None, ((m, q),))
    assert not proof.complete


def test_missing_prices_are_refused() -> None:
    instance, problem, best, certificate = proven()[0]
    assert best.fleet is not None
    plan = decode(instance, problem, best.fleet, instance_sha256(instance))
    report = check(instance, plan)
    poor = certificate.model_copy(update={"prices": {}})
    with pytest.raises(InvalidInstance):
        certified(instance, report, poor)


def test_rules_that_are_not_covered_are_named() -> None:
    document = random_document(3)
    document["slo"] = [{"metric": "tpot", "percentile": 99, "limit_ms": 50}]
    with suppress(InvalidInstance), pytest.raises(NotCovered):
        PointTables(instance_of(document))


def test_walks_agree_in_order() -> None:
    """By layers <= by units <= by segments, and all none where nothing fits."""
    compared = none = 0
    for instance, _, _, certificate in proven():
        tables = PointTables(instance)
        prices = [
            [0, *certificate.prices[name][: max(tables.islands[k])]]
            for k, name in enumerate(tables.types)
        ]
        for chain in certificate.chains[:3]:
            chunks = certificate.prefill_chunk_tokens
            for rows in tables.rows(chain[0], chain[1], chunks):
                for theta in (tables.limit_ns, tables.limit_ns // 40, 2):
                    found = [
                        lower_bound(rows, prices, theta, mu, walk)
                        for mu in (0, 10**6)
                        for walk in (0, 1, 2)
                    ]
                    assert found[0] <= found[1] <= found[2]
                    assert found[3] <= found[4] <= found[5]
                    none += found[2] >= NONE
                    compared += 1
    assert compared > none > 0


def test_a_certificate_survives_its_file() -> None:
    certificate = proven()[0][3]
    text = certificate.model_dump_json()
    assert Certificate.model_validate_json(text) == certificate
    assert json.loads(text)["goal"] == "throughput"
