"""Minimal conflicts against brute force: ``python -m tests.fuzz.conflicts``.

For every random infeasible instance: the conflict alone is infeasible, and without any
one of its rules it is feasible, both by exhaustive search. Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.generators import instance_of, random_document

from shardwright.problem import Problem, compile_problem
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits
from shardwright.search.conflict import minimal_conflict, present_rules, without


def has_plan(problem: Problem) -> bool:
    """By brute force."""
    limits = SearchLimits(time_limit_s=60, workers=1)
    return solver("exhaustive").solve(problem, limits).status is Status.OPTIMAL


def judged(seed: int) -> tuple[str, list[str]]:
    """What the instance is (feasible, structural, a conflict), and complaints."""
    problem = compile_problem(instance_of(random_document(seed)))
    if not problem.units or not problem.points or has_plan(problem):
        return "feasible or empty", []
    found = minimal_conflict(problem, SearchLimits(time_limit_s=30, workers=1))
    if found.structural:
        bare = without(problem, present_rules(problem))
        return "structural", ["a plan exists"] if has_plan(bare) else []
    if not found.verified:
        return "unverified", []
    others = [r for r in present_rules(problem) if r not in found.rules]
    complaints = []
    if has_plan(without(problem, others)):
        complaints.append(f"{found.rules} is not a conflict")
    complaints += [
        f"{found.rules} is not minimal: {rule} may go"
        for rule in found.rules
        if not has_plan(without(problem, [*others, rule]))
    ]
    return "conflict", complaints


def main() -> int:
    """Run, report, and say by the exit status whether every conflict is minimal."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.conflicts", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="conflicts to judge")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    asked = parser.parse_args()
    kinds: Counter[str] = Counter()
    bad = 0
    seed = asked.seed
    while kinds["conflict"] < asked.count:
        kind, complaints = judged(seed)
        kinds[kind] += 1
        bad += len(complaints)
        for complaint in complaints:
            print(f"seed {seed}: {complaint}")
        seed += 1
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    print(f"seeds {asked.seed} to {seed - 1}: {counts}; complaints: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
