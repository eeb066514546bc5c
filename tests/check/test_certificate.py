"""Certificates: what they prove is what brute force finds, and nothing else passes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest
from tests.check.certificates import (
    Proven,
    chained,
    drawn,
    false_claims,
    no_plan,
    seed,
    six,
)
from tests.generators import instance_of, random_document

from shardwright.check import check
from shardwright.check.certificate import ClaimProof, Verifier, verify
from shardwright.check.certificate_rules import RuleBook
from shardwright.check.certificate_tables import (
    NotCovered,
    PointTables,
    most_layers,
)
from shardwright.check.certificate_terms import terms_of
from shardwright.check.certified import Certified, GoalProof, certified
from shardwright.ingest import instance_sha256
from shardwright.ingest.load import canonical_json
from shardwright.outcome import goal_bounds
from shardwright.plan.decode import decode
from shardwright.planning.certify import certify
from shardwright.schema.certificate import Certificate, Claim
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome


def truth(proven: Proven, proof: ClaimProof) -> bool:
    """Whether what is proven is so: the optimum is not beyond it."""
    best = proven.values[proof.goal]
    if proof.bound is None:
        return True
    return proof.bound >= best if proof.goal == "throughput" else proof.bound <= best


def test_bounds_equal_brute_force() -> None:
    """Every claim is true; all are proven, but some of TTFT.

    110 instances: 72 infeasible, 13 of several kinds of layers, the other 25 covered.
    """
    found, claims, open_goals, by_fleets = drawn(), 0, [], 0
    for proven in found.proven:
        for proof in proven.verified():
            assert truth(proven, proof)
            claims += 1
            if not proof.complete:
                open_goals.append(proof.goal)
            elif proof.columns:
                by_fleets += 1
                assert proof.bound == proven.values[proof.goal]
    assert (len(found.proven), found.uncovered) == (25, 13)
    assert claims >= 40
    assert by_fleets >= 5
    assert {*open_goals} <= {"ttft"}
    assert len(open_goals) <= 3


def test_that_no_plan_exists_is_proven_only_where_it_is_so() -> None:
    """Of 72 infeasible instances 33 are covered: 28 are proven, and no other is."""
    proofs = drawn().infeasible
    assert len(proofs) == PROVABLE
    assert sum(proof.complete for proof in proofs) >= 28
    for proven in (*drawn().proven, six()):
        assert not no_plan(proven.instance).complete


PROVABLE = 33


def test_claims_that_are_false_are_never_proven() -> None:
    """Certificates made on purpose for a value that is one short of the optimum."""
    tried = 0
    for proven in (*drawn().proven, six()):
        for goal, certificate in false_claims(proven):
            (proof,) = proven.verified(certificate)
            assert proof.goal == goal
            assert not proof.complete
            assert truth(proven, proof)
            tried += 1
    assert tried >= 35


def test_a_layer_that_takes_nothing_fits_where_nothing_is_left() -> None:
    """Found by drawing: a replica whose memory is full was not seen, and denied."""
    assert most_layers(5, 0, 0) == 5
    assert most_layers(5, 7, 2) == 3
    assert most_layers(5, -1, 0) == 0
    instance = instance_of(random_document(171))
    made = certify(instance, {"gpus": 1}, {"gpus": 2}, SearchLimits(workers=1))
    (proof,) = verify(instance, made, {"gpus": 1})
    assert not proof.complete


def test_chains_and_labels_prove_the_same() -> None:
    links = labelled = 0
    for proven, by_chains in chained():
        pairs = zip(proven.verified(), proven.verified(by_chains), strict=True)
        for one, other in pairs:
            assert one.complete == other.complete
            assert truth(proven, other)
            links += other.links
            labelled += other.labelled
    assert links > 100
    assert labelled > 10


@pytest.mark.parametrize("make", [seed, six])
def test_shipped_instances_are_proven_in_every_goal(make: object) -> None:
    proven = seed() if make is seed else six()
    proofs = proven.verified()
    assert [proof.goal for proof in proofs] == [*proven.problem.goals]
    assert all(proof.complete for proof in proofs)
    assert [proof.bound for proof in proofs] == [*proven.best.values]
    assert len(proven.certificate.model_dump_json()) < 50_000


# -- tampering -----------------------------------------------------------------------


def changed(certificate: Certificate, index: int, **changes: object) -> Certificate:
    """One of its claims alone, changed."""
    claim = certificate.claims[index].model_copy(update=changes)
    return certificate.model_copy(update={"claims": (claim,)})


def scaled(claim: Claim, numerator: int, denominator: int) -> dict[str, object]:
    """All its prices by a factor."""
    return {
        "prices": {
            name: tuple(p * numerator // denominator for p in row)
            for name, row in claim.prices.items()
        },
        "per_gpu": claim.per_gpu * numerator // denominator,
    }


def _both() -> list[tuple[Proven, Certificate]]:
    """Tiny instances, by labels and by chains."""
    return [(p, p.certificate) for p in drawn().proven] + [*chained()]


def test_a_lowered_price_is_rejected_or_counted_in() -> None:
    """One size at a tenth: replicas of that size earn more than it says."""
    rejected = 0
    for proven, certificate in _both():
        for index, claim in enumerate(certificate.claims):
            for name, row in claim.prices.items():
                for z in range(len(row)):
                    lower = (*row[:z], row[z] // 10 + 1, *row[z + 1 :])
                    prices = {**claim.prices, name: lower}
                    wrong = changed(certificate, index, prices=prices)
                    (proof,) = proven.verified(wrong)
                    assert truth(proven, proof)
                    rejected += not proof.complete
    assert rejected >= 15


def test_a_lowered_price_of_the_size_in_use_is_rejected() -> None:
    proven = six()
    claim = proven.certificate.claims[0]
    ((name, row),) = claim.prices.items()
    lower = (*row[:3], row[3] // 2, *row[4:])  # four GPUs, of which the plan is made
    wrong = changed(proven.certificate, 0, prices={name: lower})
    (proof,) = proven.verified(wrong)
    assert not proof.complete
    assert truth(proven, proof)


@pytest.mark.parametrize("tenths", [0, 5, 11, 20])
def test_all_prices_by_a_factor_prove_nothing_false(tenths: int) -> None:
    for proven, certificate in _both():
        for index, claim in enumerate(certificate.claims):
            changes = scaled(claim, tenths, 10)
            (proof,) = proven.verified(changed(certificate, index, **changes))
            assert truth(proven, proof)
            assert not proof.complete or proof.bound == claim.bound


def test_a_better_threshold_is_rejected() -> None:
    tried = 0
    for proven, certificate in _both():
        proofs = proven.verified(certificate)
        for index, claim in enumerate(certificate.claims):
            better = -1 if claim.goal == "throughput" else 1
            wrong = changed(certificate, index, bound=claim.bound + better)
            (proof,) = proven.verified(wrong)
            assert proofs[index].complete or claim.goal == "ttft"
            assert not proof.complete
            assert truth(proven, proof)
            tried += 1
    assert tried >= 30


def test_a_larger_slack_is_counted_in() -> None:
    rejected = 0
    for proven, certificate in _both():
        for index in range(len(certificate.claims)):
            wrong = changed(certificate, index, slack_ppb=5 * 10**8)
            (proof,) = proven.verified(wrong)
            assert truth(proven, proof)
            rejected += not proof.complete
    assert rejected >= 5


def test_altered_chain_values_are_rejected_or_harmless() -> None:
    """Multipliers of nothing, random ones, chains cut short: nothing false passes."""
    rng, rejected = Random(1), 0
    for proven, certificate in chained():
        for index, claim in enumerate(certificate.claims):
            zero = tuple((*c[:2], *(0 for _ in c[2:])) for c in claim.chains)
            drawn_anew = tuple(
                (*c[:2], *(rng.randint(0, 2 * code + 2) for code in c[2:]))
                for c in claim.chains
            )
            cut = tuple(c[:3] for c in claim.chains)
            for altered in (zero, drawn_anew, cut):
                wrong = changed(certificate, index, chains=altered)
                (proof,) = proven.verified(wrong)
                assert truth(proven, proof)
                rejected += not proof.complete
    assert rejected >= 10


def test_a_point_left_out_is_missed() -> None:
    for proven in (seed(), six()):
        for index, claim in enumerate(proven.certificate.claims):
            wrong = changed(proven.certificate, index, chains=claim.chains[1:])
            (proof,) = proven.verified(wrong)
            assert proof.missing == (claim.chains[0][:2],)
            assert proof.bound is None
            assert not proof.complete


def test_the_tables_are_the_checkers_own() -> None:
    """A faster GPU or a looser limit: the same certificate proves the plan no more."""
    for proven in (six(),):
        for change in ("memory", "limit", "speed"):
            document = json.loads(canonical_json(proven.instance))
            gpu = document["cluster"]["gpu_types"]["h100"]
            if change == "speed":
                gpu["hbm_gbyte_per_s"] *= 1.1
            elif change == "memory":
                gpu["link_gbyte_per_s"] *= 2
            for target in document["slo"] if change == "limit" else ():
                target["limit_ms"] *= 1.1
            other = Instance.model_validate_json(json.dumps(document))
            index = [*proven.values].index("throughput")
            assert not proven.verified(instance=other)[index].complete


def test_random_spoiling_never_proves_what_is_false() -> None:
    """Prices, slack and bounds at once: whatever is proven is true."""
    rng, proven_still, tried = Random(7), 0, 0
    for proven in drawn().proven:
        for index, claim in enumerate(proven.certificate.claims):
            for _ in range(4):
                worse = rng.randint(-3, 3) * max(1, claim.bound // 50)
                changes = scaled(claim, rng.randint(0, 15), 10)
                changes |= {"bound": max(0, claim.bound + worse)}
                changes |= {"slack_ppb": rng.choice((0, 1, 10**7))}
                wrong = changed(proven.certificate, index, **changes)
                (proof,) = proven.verified(wrong)
                assert truth(proven, proof)
                proven_still += proof.complete
                tried += 1
    assert tried > 150
    assert 0 < proven_still < tried


def test_free_segments_bound_nothing() -> None:
    """Prices of nothing: no ratio says what a replica earns, so nothing is proven."""
    proven = drawn().proven[0]
    claim = proven.certificate.claims[0]
    wrong = changed(proven.certificate, 0, **scaled(claim, 0, 1))
    assert truth(proven, proven.verified(wrong)[0])


# -- plans ---------------------------------------------------------------------------


def _report(proven: Proven, outcome: SearchOutcome) -> object:
    assert outcome.fleet is not None
    sha = instance_sha256(proven.instance)
    plan = decode(proven.instance, proven.problem, outcome.fleet, sha)
    return check(proven.instance, plan)


def _certified(proven: Proven, outcome: SearchOutcome) -> Certified:
    """As of a result that claims the outcome's values to be optimal."""
    grid = {
        "sequences": {str(q): [*some] for q, some in proven.grid.items()},
        "prefill_chunk_tokens": [*proven.chunks],
    }
    goals = proven.problem.goals
    objectives = goal_bounds(goals, outcome.values, outcome.values)
    report = _report(proven, outcome)
    return certified(proven.instance, report, proven.certificate, grid, objectives)  # type: ignore[arg-type]


def _second(proven: Proven) -> SearchOutcome | None:
    """An optimum under one more rule, which the best plan breaks."""
    bounds, problem = proven.problem.bounds, proven.problem
    assert proven.best.fleet is not None
    designs = [replica.design for replica in proven.best.fleet.replicas]
    used = sum(problem.units[s.unit].gpus for d in designs for s in d.stages)
    tpot = max(problem.figures(d).tpot_ns for d in designs)
    for rule in (
        {"max_gpus": used - 1},
        {"tpot_ns": tpot - 1},
        {"spare_gpus": problem.usable_gpus - used + 1},
        {"max_stages": max(len(d.stages) for d in designs) - 1},
    ):
        other = replace(problem, bounds=replace(bounds, **rule))
        found = solver("default").solve(other, SearchLimits(workers=1))
        if found.values and found.values != proven.best.values:
            return found
    return None


def test_the_best_plan_passes_and_a_worse_one_does_not() -> None:
    worse = 0
    for proven in (seed(), six(), *drawn().proven[:16]):
        best = _certified(proven, proven.best)
        assert not best.refuted
        if "ttft" not in proven.problem.goals:
            assert best.complete
            assert best.text().startswith("certificate: complete")
        second = _second(proven)
        if second is None:
            continue
        found = _certified(proven, second)
        assert not found.complete
        assert "rests on the solver" in found.text()
        worse += 1
    assert worse >= 4


def test_a_plan_that_is_too_good_refutes_the_certificate() -> None:
    proof = seed().verified()[1]
    assert proof.bound is not None
    wrong = GoalProof("throughput", proof.bound + 1, proof.bound + 1, proof)
    assert wrong.refuted
    assert "not of this plan and instance" in wrong.text(())


def test_what_rests_on_the_solver_is_named() -> None:
    proof = ClaimProof("throughput", 1200, 1000, 5, 0, 0, ((8, 1),), (), False)
    text = GoalProof("throughput", 1000, 1000, proof).text(("survive",))
    assert "within 20.0000% of the optimum" in text
    assert "rests on the solver, at operating points M=8 q=1, with survive" in text
    missing = replace(proof, bound=None, open=(), missing=((4, 2), (8, 2)))
    assert "M=4 q=2" in GoalProof("throughput", 1000, 1000, missing).text(())
    nothing = GoalProof("tpot", 5, 5, None)
    assert "no claim in the certificate" in nothing.text(())
    assert not nothing.proven


def test_a_bare_plan_does_not_say_what_the_grid_is() -> None:
    proven = seed()
    found = certified(
        proven.instance,
        _report(proven, proven.best),  # type: ignore[arg-type]
        proven.certificate,
    )
    assert all(goal.proven for goal in found.goals)
    assert not found.complete
    assert "grid" in found.text()


# -- refusals ------------------------------------------------------------------------


def test_missing_prices_are_refused() -> None:
    proven = seed()
    poor = changed(proven.certificate, 0, prices={})
    with pytest.raises(InvalidInstance, match="prices of h100"):
        certified(proven.instance, _report(proven, proven.best), poor)  # type: ignore[arg-type]


def test_a_claim_of_another_goal_is_refused() -> None:
    proven = six()
    wrong = changed(proven.certificate, 0, goal="cost")
    with pytest.raises(ValueError, match="the goal cost"):
        proven.verified(wrong)


def test_rules_that_are_not_covered_are_named() -> None:
    kinds = experts = 0
    for number in range(12):
        for draw in (random_document(number), random_document(number, experts=True)):
            instance = instance_of(draw)
            try:
                PointTables(instance)
            except NotCovered as error:
                kinds += "several kinds" in str(error)
                experts += str(error) == "experts"
    assert kinds
    assert experts


def test_a_certificate_survives_its_file() -> None:
    certificate = chained()[0][1]
    text = certificate.model_dump_json()
    assert Certificate.model_validate_json(text) == certificate


def test_verifying_needs_no_engine_and_no_numpy() -> None:
    code = (
        "import sys\n"
        "for name in ('ortools', 'numpy', 'pulp'): sys.modules[name] = None\n"
        "from shardwright.schema.certificate import Certificate\n"
        "from shardwright.schema.instance import Instance\n"
        "from shardwright.check.certificate import verify\n"
        "import json\n"
        "i, c, v = map(json.dumps, json.load(sys.stdin))\n"
        "proofs = verify(Instance.model_validate_json(i),\n"
        "                Certificate.model_validate_json(c), json.loads(v))\n"
        "print([proof.complete for proof in proofs])\n"
    )
    proven = six()
    given = [
        json.loads(canonical_json(proven.instance)),
        proven.certificate.model_dump(mode="json"),
        proven.values,
    ]
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[True, True]"


def test_labels_of_a_claim_are_exactly_what_brute_force_lists() -> None:
    """The largest rate at every point, when every replica counts.

    Labels do not ask whether segments find islands: that is the fleet's question.
    """
    compared = same = 0
    for proven in drawn().proven:
        bounds = proven.problem.bounds
        shares = (bounds.memory_imbalance, bounds.communication_share)
        free = (bounds.compute_imbalance, bounds.prefill_ns, bounds.ttft_ns)
        if any(x is not None for x in (*shares, *free, bounds.e2e_ns, bounds.split)):
            continue
        if bounds.max_cost_micro_usd_per_hour is not None or bounds.survive:
            continue
        points, equal = _same_rates(proven)
        compared, same = compared + points, same + equal
    assert compared >= 10
    assert same >= compared - 3


def _same_rates(proven: Proven) -> tuple[int, int]:
    from shardwright.search.exhaustive import Count, DesignSearch
    from shardwright.search.packing import Yard

    tables = PointTables(proven.instance)
    claim = Claim(
        goal=proven.problem.goals[0],  # type: ignore[arg-type]
        bound=2,
        prices=dict.fromkeys(tables.types, (0,) * 8),
        slack_ppb=0,
        chains=(),
    )
    terms = replace(terms_of(tables, claim, {}), gpus=proven.problem.usable_gpus)
    terms = replace(terms, rate=1, cost=None, tpot_ns=tables.limit_ns, ttft_ns=None)
    verifier = Verifier(tables, claim, terms, proven.chunks, RuleBook(tables))
    count = Count("designs", 10**6, SearchLimits())
    search = DesignSearch(proven.problem, Yard(proven.problem), count)
    best: dict[tuple[int, int], int] = {}
    same = 0
    for o, point in enumerate(proven.problem.points):
        key = point.sequences, point.micro_batches
        rates = (column.rate for column in search.designs(o))
        best[key] = max([best.get(key, 0), *rates])
    for key, rate in best.items():
        found = verifier.labelled(*key).columns
        most = max((r for r, _ in found.values()), default=0)
        assert most >= rate
        same += most == rate
    return len(best), same
