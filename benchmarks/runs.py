"""One answer: of a whole process, or of one search in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from shardwright.check import check
from shardwright.ingest import instance_sha256
from shardwright.outcome import goal_bounds, goal_values
from shardwright.plan.decode import decode
from shardwright.problem import compile_problem
from shardwright.schema.errors import (
    InstanceTooLarge,
    SolverUnavailable,
    UnsupportedRule,
)
from shardwright.schema.instance import Instance
from shardwright.schema.result import Result
from shardwright.search import solver as solver_named
from shardwright.search.base import SearchLimits, SearchOutcome

from .suite import ROOT, Case
from .verdict import Claim, Value

WORKERS = 2
GRACE = 3.0
"""A search that runs this many times its limit, and 10 s, is ended and says so."""


@dataclass
class Answer:
    """What came of one run; ``trouble`` is a word where no result came at all."""

    solver: str
    status: str = ""
    stopped_by: str = ""
    claims: list[Claim] = field(default_factory=list)
    plan_ok: bool | None = None
    seconds: list[float] = field(default_factory=list)
    search_s: float | None = None
    model_size: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    trouble: str = ""
    note: str = ""

    @property
    def median_s(self) -> float | None:
        """Median wall time of the repeats."""
        return median(self.seconds) if self.seconds else None


# -- the whole process ---------------------------------------------------------------


def run_process(case: Case, time_limit_s: float, repeat: int) -> Answer:
    """``python -m shardwright.cli solve FILE --json``, ``repeat`` times."""
    answer, instance = Answer("default"), case.instance()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "shardwright.cli", "solve"]
        command += _file_and_options(case, instance, Path(folder))
        command += ["--json", "--quiet", "--workers", str(WORKERS), "--seed", "0"]
        command += ["--time-limit", str(time_limit_s)]
        for _ in range(repeat):
            begun = perf_counter()
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=ROOT, check=False
            )
            answer.seconds.append(round(perf_counter() - begun, 3))
            _take_result(answer, instance, done)
    return answer


def _file_and_options(case: Case, instance: Instance, folder: Path) -> list[str]:
    """The shipped file with its options; an instance that was cut down is written."""
    if case.is_cut:
        file = folder / "instance.json"
        file.write_text(instance.model_dump_json(by_alias=True), encoding="utf-8")
        return [str(file)]
    options = [case.file]
    options += [] if case.objective is None else ["--objective", case.objective]
    options += [] if case.fix is None else ["--fix", case.fix]
    return options


def _take_result(
    answer: Answer, instance: Instance, done: subprocess.CompletedProcess[str]
) -> None:
    try:
        result = Result.model_validate_json(done.stdout)
    except ValueError:
        answer.trouble = "fail (abort)"
        answer.note = f"exit {done.returncode}: {done.stderr.strip()[-200:]}"
        return
    claims = [Claim.of(o.name, o.value, o.bound) for o in result.objectives]
    if answer.claims and (claims, str(result.status)) != (answer.claims, answer.status):
        answer.note = "the repeats differ"
    answer.status, answer.stopped_by = str(result.status), result.stopped_by
    answer.claims, answer.search_s = claims, result.solve_seconds
    answer.model_size, answer.sha256 = result.model_size, result.instance_sha256
    if result.conflict is not None:
        answer.note = result.conflict.message
    if result.plan is not None:
        answer.plan_ok = check(instance, result.plan, result.objectives).ok


# -- one search ----------------------------------------------------------------------


def run_search(solver: str, instance: Instance, limit_s: float) -> Answer:
    """One solver in a fresh process, which is ended when it overruns its limit."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    task = (solver, instance.model_dump_json(by_alias=True), limit_s)
    child = context.Process(target=_child, args=(theirs, *task), daemon=True)
    child.start()
    theirs.close()
    try:
        if ours.poll(GRACE * limit_s + 10):
            answer: Answer = ours.recv()
            return answer
        return Answer(solver, trouble="timeout", note="overran its limit and was ended")
    except EOFError:
        child.join(5)
        note = f"the process died, exit {child.exitcode}"
        return Answer(solver, trouble="fail (abort)", note=note)
    finally:
        child.kill()
        child.join()


def _child(out: Connection, solver: str, document: str, limit_s: float) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # engines print what they like
    out.send(search(solver, Instance.model_validate_json(document), limit_s))


def search(solver: str, instance: Instance, limit_s: float) -> Answer:
    """One search in this process; refusals are answers, and so are failures."""
    answer = Answer(solver, sha256=instance_sha256(instance))
    problem = compile_problem(instance)
    limits = SearchLimits(time_limit_s=limit_s, workers=WORKERS)
    begun = perf_counter()
    try:
        outcome = solver_named(solver).solve(problem, limits)
    except (InstanceTooLarge, UnsupportedRule, SolverUnavailable) as refusal:
        answer.trouble, answer.note = "refused", str(refusal)
        return answer
    except Exception as error:  # a benchmark survives what it measures
        answer.trouble = "fail (abort)"
        answer.note = f"{type(error).__name__}: {str(error)[:200]}"
        return answer
    answer.search_s = round(perf_counter() - begun, 3)
    answer.seconds = [answer.search_s]
    _take_outcome(answer, instance, outcome)
    return answer


def _take_outcome(answer: Answer, instance: Instance, outcome: SearchOutcome) -> None:
    problem = compile_problem(instance)
    answer.status, answer.stopped_by = str(outcome.status), outcome.stopped_by
    answer.model_size = outcome.model_size
    values: tuple[int | None, ...] = (None,) * len(problem.goals)
    plan = None
    if outcome.fleet is not None:
        plan = decode(instance, problem, outcome.fleet, answer.sha256)
        values = goal_values(problem, plan)
    bounds = outcome.bounds or (None,) * len(problem.goals)
    objectives = goal_bounds(problem.goals, values, bounds)
    answer.claims = [Claim.of(o.name, o.value, o.bound) for o in objectives]
    if plan is not None:
        answer.plan_ok = check(instance, plan, objectives).ok


def as_json(answer: Answer, extra: dict[str, Any]) -> str:
    """One line of the record."""
    goals = [
        {"goal": c.goal, "value": _float(c.value), "bound": _float(c.bound)}
        for c in answer.claims
    ]
    row = {**extra, **{k: v for k, v in vars(answer).items() if k != "claims"}}
    return json.dumps({**row, "median_s": answer.median_s, "goals": goals})


def _float(value: Value) -> float | None:
    return None if value is None else float(value)
