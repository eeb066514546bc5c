"""A certificate for an answer: prices by the search, multipliers by the checker."""

from __future__ import annotations

from collections.abc import Mapping

from shardwright.check.certificate import ClaimProof, Verifier
from shardwright.check.certificate_labels import Segments
from shardwright.check.certificate_links import FEW, with_links
from shardwright.check.certificate_rules import RuleBook
from shardwright.check.certificate_tables import NotCovered, PointTables
from shardwright.check.certificate_terms import Terms, terms_of
from shardwright.check.certified import asked_mtok, whole
from shardwright.formulations.cpsat.patterns import Column
from shardwright.ingest import instance_sha256
from shardwright.problem import Problem, compile_problem
from shardwright.schema.certificate import Certificate, Claim, ClaimedGoal
from shardwright.schema.errors import FieldError, InvalidInstance, UnsupportedRule
from shardwright.schema.instance import Instance
from shardwright.schema.result import Result, Status
from shardwright.search.base import SearchLimits
from shardwright.search.certify import (
    CertificatePrices,
    most_throughput,
    prices_of_columns,
    searched_prices,
    uniform_columns,
)

_ROUNDS = 12
_COVERED: tuple[ClaimedGoal, ...] = ("gpus", "cost", "throughput", "tpot", "ttft")


def certify(
    instance: Instance,
    values: Mapping[str, int],
    bounds: Mapping[str, int | None],
    limits: SearchLimits,
) -> Certificate:
    """A claim for every goal of an answer that has a bound and is covered.

    values, bounds: of the answer, in the order and the integers of its goals. Raises
    UnsupportedRule where a rule, or every goal, is not covered.
    """
    problem = compile_problem(instance)
    if not problem.points:
        raise UnsupportedRule("certificate", "a grid without operating points")
    try:
        maker = _Maker(instance, problem, limits)
    except NotCovered as error:
        raise UnsupportedRule("certificate", str(error)) from error
    claims = []
    for goal in _COVERED:
        bound = bounds.get(goal)
        if bound is not None:
            claims.append(maker.claim(goal, bound, values))
    if not claims:
        raise UnsupportedRule(
            "certificate", f"no bound on any of {', '.join(_COVERED)}"
        )
    claims.sort(key=lambda claim: [*values].index(claim.goal))
    return Certificate(prefill_chunk_tokens=maker.chunks, claims=tuple(claims))


def certify_result(
    instance: Instance, result: Result, limits: SearchLimits
) -> Certificate:
    """The certificate of a result, or that no plan exists.

    Raises UnsupportedRule, also without a plan, and InvalidInstance for the result of
    another instance.
    """
    own = instance_sha256(instance)
    if result.instance_sha256 != own:
        other = f"the instance {result.instance_sha256[:12]}"
        allowed = f"{own[:12]}; options of solve change it: solve --certificate"
        raise InvalidInstance("result", [FieldError("instance_sha256", other, allowed)])
    if result.status is Status.INFEASIBLE:
        short = {"throughput": asked_mtok(instance) - 1}
        return certify(instance, {"throughput": 0}, short, limits)
    if result.plan is None:
        raise UnsupportedRule("certificate", f"a result that is {result.status.value}")
    values, bounds = {}, {}
    for goal in result.objectives:
        assert goal.value is not None
        values[goal.name] = whole(goal.name, goal.value)
        bounds[goal.name] = None if goal.bound is None else whole(goal.name, goal.bound)
    return certify(instance, values, bounds, limits)


class _Maker:
    """Claims of one instance. Raises NotCovered."""

    def __init__(
        self, instance: Instance, problem: Problem, limits: SearchLimits
    ) -> None:
        self.problem, self.limits = problem, limits
        self.tables = PointTables(instance)
        if {k.name for k in problem.classes} != {*self.tables.types}:
            raise NotCovered("GPU types without GPUs")
        self.rules = RuleBook(self.tables)
        self.chunks = tuple(sorted({p.chunk_tokens for p in problem.points}))
        self.points = sorted({(p.sequences, p.micro_batches) for p in problem.points})

    def claim(self, goal: ClaimedGoal, bound: int, values: Mapping[str, int]) -> Claim:
        """Prices, then multipliers; what the checker finds dear raises the prices."""
        bare = Claim(goal=goal, bound=bound, prices={}, slack_ppb=0, chains=())
        terms = terms_of(self.tables, bare, values)
        problem = most_throughput(self.problem, terms.gpus, terms.cost, terms.tpot_ns)
        columns = uniform_columns(problem)
        prices = prices_of_columns(problem, columns) if columns else None
        if not self._few_labels(bare, terms):
            prices, columns = searched_prices(problem, self.limits)
        known = {(c.signature, c.rate_mtok_per_s): c for c in columns}
        best: tuple[Claim, ClaimProof] | None = None
        for _ in range(_ROUNDS):
            claim, proof, found = self._tried(bare, terms, prices)
            if best is None or _better(proof, best[1]):
                best = claim, proof
            new = [self._column(segments, *found[segments]) for segments in found]
            more = {(c.signature, c.rate_mtok_per_s): c for c in new}
            if proof.complete or more.keys() <= known.keys():
                break
            known |= more
            prices = prices_of_columns(problem, list(known.values()))
        assert best is not None
        return best[0]

    def _few_labels(self, bare: Claim, terms: Terms) -> bool:
        """Whether the checker itself finds what earns most, soon."""
        claim = self._priced(bare, None)
        verifier = Verifier(self.tables, claim, terms, self.chunks, self.rules)
        counts = (verifier.label_count(*point) for point in self.points)
        return all(count is not None and count <= FEW for count in counts)

    def _tried(
        self, bare: Claim, terms: Terms, prices: CertificatePrices | None
    ) -> tuple[Claim, ClaimProof, dict[Segments, tuple[int, int]]]:
        """A claim at these prices, what it proves, and what earns nearly its price."""
        claim = self._priced(bare, prices)
        verifier = Verifier(self.tables, claim, terms, self.chunks, self.rules)
        claim = with_links(verifier, self.points)
        verifier = Verifier(self.tables, claim, terms, self.chunks, self.rules)
        return claim, verifier.prove(()), verifier.columns

    def _priced(self, bare: Claim, prices: CertificatePrices | None) -> Claim:
        names = [gpu_class.name for gpu_class in self.problem.classes]
        if prices is None:
            rooms = [max(sizes, default=0) for sizes in self.tables.islands]
            own = tuple((0,) * room for room in rooms)
            names, prices = list(self.tables.types), CertificatePrices(own, 0, 0, 0)
        rows = dict(zip(names, prices.own, strict=True))
        return bare.model_copy(
            update={
                "prices": rows,
                "per_gpu": prices.per_gpu,
                "per_cost": prices.per_cost,
                "slack_ppb": prices.slack_ppb,
            }
        )

    def _column(self, segments: Segments, rate: int, gpus: int) -> Column:
        classes = self.problem.classes
        names = [gpu_class.name for gpu_class in classes]
        place = [names.index(name) for name in self.tables.types]
        signature = tuple(sorted((place[k], z) for k, z in segments))
        cost = sum(classes[k].price_micro_usd_per_hour * z for k, z in signature)
        return Column(signature, gpus, cost, rate)


def _better(one: ClaimProof, other: ClaimProof) -> bool:
    """Whether a proof says more."""
    if one.complete != other.complete or one.bound is None or other.bound is None:
        return one.complete and not other.complete
    less = one.bound < other.bound
    return less if one.goal == "throughput" else one.bound > other.bound
