"""The optimum's own decisions, one step beyond it, and two clusters side by side.

As in test_metamorphic.py, no oracle is needed: fixing what the optimum decided keeps
its value, a limit one step beyond it leaves nothing, two clusters do twice as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import pytest
from tests.generators import instance_of
from tests.search.relations import (
    REAL,
    SEEDS,
    Doc,
    goals_of,
    has_optimum,
    original,
    solve_document,
    solve_problem,
)

from shardwright.problem import Problem, compile_problem
from shardwright.schema.result import Status
from shardwright.search.base import SearchOutcome

# -- the optimum's own decisions, and one step beyond it -----------------------------


def own_decisions(problem: Problem, outcome: SearchOutcome) -> Doc:
    """What all replicas of the optimum have in common, as ``fix`` states it."""
    assert outcome.fleet is not None
    designs = [r.design for r in outcome.fleet.replicas]
    points = [problem.points[d.point] for d in designs]
    values = {
        "dp": {len(designs)},
        "pp": {len(d.stages) for d in designs},
        "tp": {problem.units[s.unit].shape.tp for d in designs for s in d.stages},
        "layers": {tuple(s.end - s.start for s in d.stages) for d in designs},
        "sequences": {p.sequences for p in points},
        "micro_batches": {p.micro_batches for p in points},
        "prefill_chunk_tokens": {p.chunk_tokens for p in points},
    }
    return {name: found.pop() for name, found in values.items() if len(found) == 1}


def keeps_its_value(case: int | str, names: Sequence[str]) -> bool:
    """Fixing some of the optimum's decisions leaves the values; False: none of them."""
    document, before = original(case)
    own = own_decisions(compile_problem(instance_of(document)), before)
    fix = {name: own[name] for name in names if name in own}
    if not fix:
        return False
    given = {k: v for k, v in document.get("fix", {}).items() if v is not None}
    after = solve_document({**document, "fix": given | fix})
    assert after.status is Status.OPTIMAL, (case, fix)
    assert after.values == before.values, (case, fix)
    return True


FIXES = (
    ("tp",),
    ("pp",),
    ("dp",),
    ("sequences",),
    ("layers", "pp"),
    ("tp", "pp", "dp", "layers", "sequences", "micro_batches", "prefill_chunk_tokens"),
)


@pytest.mark.parametrize("names", FIXES, ids="+".join)
def test_fixing_own_decisions_keeps_the_optimum(names: Sequence[str]) -> None:
    cases = [case for case in SEEDS if has_optimum(case)]
    assert sum(keeps_its_value(case, names) for case in cases) >= 10


@pytest.mark.parametrize("name", REAL[:3])
def test_fixing_own_decisions_keeps_a_real_optimum(name: str) -> None:
    for names in (("pp", "tp"), FIXES[-1]):
        assert keeps_its_value(name, names)


CUTS: dict[str, tuple[str, int]] = {
    "gpus": ("max_gpus", -1),
    "cost": ("max_cost_micro_usd_per_hour", -1),
    "throughput": ("rate_mtok_per_s", 1),
    "tpot": ("tpot_ns", -1),
    "ttft": ("ttft_ns", -1),
}
"""Goal -> the limit on it, and the step beyond the optimum."""


def cut(case: int | str, step: bool) -> SearchOutcome | None:
    """The first goal limited at its optimum, or one integer step beyond it."""
    document, before = original(case)
    problem = compile_problem(instance_of(document))
    name, beyond = CUTS[problem.goals[0]]
    value = before.values[0] + (beyond if step else 0)
    if name == "max_gpus" and value < 1:
        return None
    return solve_problem(
        replace(problem, bounds=replace(problem.bounds, **{name: value}))
    )


def at_and_beyond(case: int | str) -> bool:
    """A limit at the optimum changes nothing; beyond it there is nothing."""
    document, before = original(case)
    at = cut(case, step=False)
    assert at is not None, document["name"]
    assert at.values == before.values, case
    beyond = cut(case, step=True)
    assert beyond is None or beyond.status is Status.INFEASIBLE, (case, beyond)
    return beyond is not None


def test_nothing_lies_beyond_the_optimum() -> None:
    cases = [case for case in SEEDS if has_optimum(case)]
    tried = {goals_of(case)[0] for case in cases if at_and_beyond(case)}
    assert tried == set(CUTS)


@pytest.mark.parametrize("name", REAL[:3])
def test_nothing_lies_beyond_a_real_optimum(name: str) -> None:
    assert at_and_beyond(name)


@pytest.mark.parametrize("goal", sorted(CUTS))
def test_nothing_lies_beyond_the_seed_optimum(goal: str) -> None:
    """The seed instance without its request rate, under each goal alone."""
    document, _ = original(REAL[0])
    problem = replace(compile_problem(instance_of(document)), goals=(goal,))
    bounds = replace(problem.bounds, rate_mtok_per_s=None)
    problem = replace(problem, bounds=bounds)
    best = solve_problem(problem).values[0]
    name, beyond = CUTS[goal]
    limit = {name: best + beyond}
    if goal == "gpus" and not limit[name]:
        return
    after = solve_problem(replace(problem, bounds=replace(bounds, **limit)))
    assert after.status is Status.INFEASIBLE


# -- two clusters --------------------------------------------------------------------


def throughput_alone(document: Doc) -> Doc:
    """Nothing that ties the two halves of a doubled cluster together."""
    document["objective"] = ["throughput"]
    document["workload"].pop("request_rate_per_s", None)
    document.get("fix", {}).pop("dp", None)
    for name in ("max_gpus", "max_cost_usd_per_hour", "spare_gpus"):
        document.get("limits", {}).pop(name, None)
    return document


def doubled(document: Doc) -> Doc:
    nodes = document["cluster"]["nodes"]
    copies = [{**deepcopy(group), "name": f"{group['name']}x"} for group in nodes]
    document["cluster"]["nodes"] = [*nodes, *copies]
    return document


@pytest.mark.parametrize("cases", [SEEDS[::2], REAL[:1], REAL[2:3]], ids=str)
def test_two_clusters_at_least_double_throughput(cases: Sequence[int | str]) -> None:
    compared = 0
    for case in cases:
        alone = throughput_alone(deepcopy(original(case)[0]))
        one, two = solve_document(alone), solve_document(doubled(deepcopy(alone)))
        if one.status is Status.OPTIMAL:
            compared += 1
            assert two.values[0] >= 2 * one.values[0], case
    assert compared >= len(cases) // 3
