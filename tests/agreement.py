"""Do the solvers agree? One harness for the tests, for ``make fuzz`` and for replays.

``judge`` holds an answer against the exhaustive optimum: equal when it claims a proof,
no better when it does not, every bound on the right side, and every fleet evaluated
again by the integers of the problem.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.generators import instance_of, random_document

from shardwright.problem import Problem, compile_problem
from shardwright.schema.errors import ShardwrightError
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import SearchLimits, SearchOutcome, Solver
from shardwright.search.goals import better, fleet_fits, fleet_values, sense

ORACLE = "exhaustive"
REGRESSIONS = Path(__file__).parent / "regressions"


@dataclass(frozen=True)
class Verdict:
    """What came of one instance. ``complaints`` is empty when all agree."""

    document: dict[str, Any]
    seed: int | None
    oracle: SearchOutcome
    complaints: tuple[str, ...]
    unproven: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether a fleet exists."""
        return self.oracle.status is Status.OPTIMAL

    def write(self, folder: Path = REGRESSIONS) -> Path:
        """Keep a failure, so that it is replayed until it is fixed and after."""
        text = json.dumps(self.document, sort_keys=True)
        name = f"seed-{self.seed}-{sha256(text.encode()).hexdigest()[:10]}.json"
        record = {
            "seed": self.seed,
            "complaints": self.complaints,
            "oracle": [str(self.oracle.status), *self.oracle.values],
            "versions": _versions(),
            "instance": self.document,
        }
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(record, indent=1) + "\n")
        return folder / name


def _versions() -> dict[str, str]:
    names = ("ortools", "pulp", "highspy", "numpy")
    return {"python": platform.python_version()} | {n: version(n) for n in names}


def agree(
    seed: int,
    solvers: Iterable[str | Solver],
    time_limit_s: float = 10.0,
    experts: bool = False,
) -> Verdict:
    """Judge the solvers on ``random_document(seed, experts)``."""
    document = random_document(seed, experts)
    return agree_on(document, solvers, time_limit_s, seed)


def agree_job(job: tuple[int, list[str], float]) -> Verdict:
    """``agree`` for a process pool."""
    return agree(*job)


def agree_on(
    document: dict[str, Any],
    solvers: Iterable[str | Solver],
    time_limit_s: float = 10.0,
    seed: int | None = None,
) -> Verdict:
    """Judge the solvers on an instance document."""
    problem = compile_problem(instance_of(document))
    begun = perf_counter()
    oracle = solver(ORACLE).solve(problem, SearchLimits(time_limit_s=60, workers=1))
    seconds = {ORACLE: perf_counter() - begun}
    complaints = [f"{ORACLE}: {c}" for c in faults(problem, oracle)]
    if oracle.status not in (Status.OPTIMAL, Status.INFEASIBLE):
        complaints.append(f"{ORACLE}: no proof, {oracle.status}")
    unproven = []
    for candidate in solvers:
        chosen = solver(candidate) if isinstance(candidate, str) else candidate
        begun = perf_counter()
        found, proven = _ask(chosen, problem, oracle, time_limit_s)
        seconds[chosen.name] = perf_counter() - begun
        complaints += [f"{chosen.name}: {c}" for c in found]
        unproven += [] if proven else [chosen.name]
    return Verdict(document, seed, oracle, tuple(complaints), tuple(unproven), seconds)


def _ask(
    candidate: Solver, problem: Problem, oracle: SearchOutcome, time_limit_s: float
) -> tuple[list[str], bool]:
    """Complaints about one solver, and whether it proved its answer."""
    try:
        answer = candidate.solve(
            problem, SearchLimits(time_limit_s=time_limit_s, workers=1)
        )
    except (ShardwrightError, ArithmeticError, AssertionError, LookupError) as error:
        return [f"raised {type(error).__name__}: {error}"], False
    except (TypeError, ValueError) as error:
        return [f"raised {type(error).__name__}: {error}"], False
    proven = answer.status in (Status.OPTIMAL, Status.INFEASIBLE)
    return [*faults(problem, answer), *judge(problem, oracle, answer)], proven


def faults(problem: Problem, answer: SearchOutcome) -> list[str]:
    """What is wrong with an answer by itself."""
    if answer.fleet is None:
        wrong = answer.status in (Status.OPTIMAL, Status.FEASIBLE) or answer.values
        return [f"{answer.status} without a fleet"] if wrong else []
    found = []
    if not fleet_fits(problem, answer.fleet):
        found.append(f"the fleet breaks a rule: {answer.fleet}")
    exact = fleet_values(problem, answer.fleet)
    if exact != answer.values:
        found.append(f"claims {answer.values}, the fleet has {exact}")
    if answer.status is Status.OPTIMAL and answer.bounds != answer.values:
        found.append(f"OPTIMAL with bounds {answer.bounds} and values {answer.values}")
    return found


def judge(problem: Problem, oracle: SearchOutcome, answer: SearchOutcome) -> list[str]:
    """What an answer has against the optimum."""
    if oracle.status is Status.INFEASIBLE:
        return [f"{answer.status}, but none exists"] if answer.fleet else []
    if answer.status is Status.INFEASIBLE:
        return [f"INFEASIBLE, but {oracle.values} exists"]
    found = []
    if answer.status is Status.OPTIMAL and answer.values != oracle.values:
        found.append(f"OPTIMAL {answer.values}, the optimum is {oracle.values}")
    if answer.values and better(problem.goals, answer.values, oracle.values):
        found.append(f"{answer.values} beats the optimum {oracle.values}")
    return [*found, *_wrong_bounds(problem, oracle, answer)]


def _wrong_bounds(
    problem: Problem, oracle: SearchOutcome, answer: SearchOutcome
) -> list[str]:
    """A goal's bound speaks while the earlier goals have their optimal values."""
    found = []
    for i, (goal, bound) in enumerate(zip(problem.goals, answer.bounds, strict=False)):
        if bound is not None and sense(goal) * bound > sense(goal) * oracle.values[i]:
            found.append(f"bound {bound} of {goal} cuts off {oracle.values[i]}")
        if not answer.values or answer.values[i] != oracle.values[i]:
            break
    return found


def regression_documents() -> Sequence[tuple[str, dict[str, Any]]]:
    """Every failure that was ever kept."""
    paths = sorted(REGRESSIONS.glob("*.json"))
    return [(p.stem, json.loads(p.read_text())["instance"]) for p in paths]
