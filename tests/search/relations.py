"""Answers of the default solver before and after a change of the instance.

On the tiny seeded instances every operating point is in the file; on the shipped ones
the grid of the original is pinned, for the default grid follows the memory and a
change would otherwise change what is chosen from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from tests.generators import instance_of, random_document

from shardwright.ingest import load
from shardwright.problem import Compiler, Problem, compile_problem
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome
from shardwright.search.goals import better, fleet_fits

Doc = dict[str, Any]
Change = Callable[[Doc], Doc | None]
"""A changed copy's content, or None where there is nothing to change."""

SEEDS = range(1000, 1044)
REAL = (
    "seeds/llama3-70b-8xh100-means",
    "production/llama3-70b-6of8xh100",
    "production/gemma3-27b-4xl40s",
    "production/llama3-70b-1xh100",
)
INSTANCES = Path(__file__).parents[2] / "instances"


def solve_problem(problem: Problem) -> SearchOutcome:
    """The proven answer of the default solver."""
    limits = SearchLimits(time_limit_s=60, workers=1)
    outcome = solver("default").solve(problem, limits)
    assert outcome.status in (Status.OPTIMAL, Status.INFEASIBLE), outcome
    assert outcome.fleet is None or fleet_fits(problem, outcome.fleet)
    return outcome


def solve_document(document: Doc) -> SearchOutcome:
    return solve_problem(compile_problem(instance_of(document)))


@cache
def original(case: int | str) -> tuple[Doc, SearchOutcome]:
    """A seeded document, or a shipped one with its grid spelled out."""
    if isinstance(case, int):
        document = random_document(case)
    else:
        instance = load(INSTANCES / f"{case}.yaml")
        document = instance.model_dump(mode="json", by_alias=True)
        grid = Compiler(instance).grid
        document["grid"] = {
            "sequences": grid.sequences,
            "prefill_chunk_tokens": grid.chunk_tokens,
            "micro_batches": grid.micro_batches,
        }
    document["objective"] = list(instance_of(document).goals())
    return document, solve_document(document)


def changed(
    case: int | str, change: Change
) -> tuple[SearchOutcome, SearchOutcome] | None:
    """Answers before and after; None where the change does not apply."""
    document, before = original(case)
    after = change(deepcopy(document))
    return None if after is None else (before, solve_document(after))


def goals_of(case: int | str) -> Sequence[str]:
    goals: Sequence[str] = original(case)[0]["objective"]
    return goals


def not_worse(case: int | str, before: SearchOutcome, after: SearchOutcome) -> bool:
    if before.status is Status.INFEASIBLE:
        return True
    return after.status is Status.OPTIMAL and not better(
        goals_of(case), before.values, after.values
    )


def has_optimum(case: int | str) -> bool:
    return original(case)[1].status is Status.OPTIMAL
