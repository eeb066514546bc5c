"""Certificates of tiny random instances and of two shipped ones, made once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.generators import instance_of, random_document

from shardwright.check.certificate import ClaimProof, Verifier, verify
from shardwright.check.certificate_links import with_links
from shardwright.check.certificate_rules import RuleBook
from shardwright.check.certificate_tables import PointTables
from shardwright.check.certificate_terms import terms_of
from shardwright.check.certified import asked_mtok
from shardwright.ingest import load
from shardwright.planning.certify import certify
from shardwright.problem import Problem, compile_problem
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome

INSTANCES = Path(__file__).parents[2] / "instances"
SEEDS = range(110)


def limits() -> SearchLimits:
    """A minute from now."""
    return SearchLimits(time_limit_s=60, workers=1)


NO_FEW = -1
"""Labels only where a chain is stuck."""


@dataclass(frozen=True)
class Proven:
    """An instance, its optimum and a certificate of it; values in goal order."""

    instance: Instance
    problem: Problem
    best: SearchOutcome
    certificate: Certificate

    @property
    def values(self) -> dict[str, int]:
        """By goal."""
        return dict(zip(self.problem.goals, self.best.values, strict=True))

    @property
    def grid(self) -> dict[int, tuple[int, ...]]:
        """q -> batches."""
        found: dict[int, tuple[int, ...]] = {}
        for p in self.problem.points:
            mine = {*found.get(p.micro_batches, ()), p.sequences}
            found[p.micro_batches] = tuple(sorted(mine))
        return found

    @property
    def chunks(self) -> tuple[int, ...]:
        """All prefill chunks."""
        return tuple(sorted({p.chunk_tokens for p in self.problem.points}))

    def verified(
        self,
        certificate: Certificate | None = None,
        instance: Instance | None = None,
        values: Mapping[str, int] | None = None,
    ) -> tuple[ClaimProof, ...]:
        """What the certificate, or another one, proves over the grid."""
        return verify(
            instance or self.instance,
            certificate or self.certificate,
            values or self.values,
            self.grid,
            self.chunks,
        )


@dataclass(frozen=True)
class Drawn:
    """What came of all seeds; infeasible: those of like layers, with the proof."""

    proven: tuple[Proven, ...]
    infeasible: tuple[ClaimProof, ...]
    uncovered: int


def no_plan(instance: Instance) -> ClaimProof:
    """What a certificate proves that says that no plan exists."""
    short = {"throughput": asked_mtok(instance) - 1}
    nothing = {"throughput": 0}
    made = certify(instance, nothing, short, limits())
    return verify(instance, made, nothing)[0]


@cache
def drawn() -> Drawn:
    """Tiny instances with their exhaustive optimum, and certificates."""
    found: list[Proven] = []
    infeasible: list[ClaimProof] = []
    uncovered = 0
    for seed in SEEDS:
        instance = instance_of(random_document(seed))
        problem = compile_problem(instance)
        best = solver("exhaustive").solve(problem, limits())
        if best.status is Status.INFEASIBLE:
            with suppress(UnsupportedRule):
                infeasible.append(no_plan(instance))
            continue
        assert best.status is Status.OPTIMAL
        values = dict(zip(problem.goals, best.values, strict=True))
        try:
            certificate = certify(instance, values, values, limits())
        except UnsupportedRule:
            uncovered += 1
            continue
        found.append(Proven(instance, problem, best, certificate))
    return Drawn(tuple(found), tuple(infeasible), uncovered)


@cache
def shipped(name: str) -> Proven:
    """A shipped instance, solved by default."""
    instance = load(INSTANCES / name)
    problem = compile_problem(instance)
    best = solver("default").solve(problem, limits())
    values = dict(zip(problem.goals, best.values, strict=True))
    return Proven(instance, problem, best, certify(instance, values, values, limits()))


def seed() -> Proven:
    """The seed with limits on means: gpus, throughput, tpot."""
    return shipped("seeds/llama3-70b-8xh100-means.yaml")


def six() -> Proven:
    """Six GPUs, unequal stages allowed: throughput, gpus."""
    return shipped("production/llama3-70b-6of8xh100-generic.yaml")


@cache
def chained() -> tuple[tuple[Proven, Certificate], ...]:
    """The tiny instances with the same claims, by chains wherever they fall."""
    return tuple((proven, _with_chains(proven)) for proven in drawn().proven)


def _with_chains(proven: Proven) -> Certificate:
    tables = PointTables(proven.instance)
    rules = RuleBook(tables)
    points = sorted({(p.sequences, p.micro_batches) for p in proven.problem.points})
    claims = []
    for claim in proven.certificate.claims:
        terms = terms_of(tables, claim, proven.values)
        verifier = Verifier(tables, claim, terms, proven.chunks, rules)
        claims.append(with_links(verifier, points, NO_FEW))
    return proven.certificate.model_copy(update={"claims": tuple(claims)})


def false_claims(proven: Proven) -> list[tuple[str, Certificate]]:
    """Certificates made for every goal as if its value were one worse, and optimal."""
    found = []
    for goal, value in proven.values.items():
        worse = value - 1 if goal == "throughput" else value + 1
        with suppress(UnsupportedRule):
            made = certify(proven.instance, proven.values, {goal: worse}, limits())
            found.append((goal, made))
    return found
