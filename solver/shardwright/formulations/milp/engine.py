"""Runs a PuLP model on HiGHS or CBC: interruptible, statuses and bounds read exactly.

What it guards against (PuLP 3.3, HiGHS 1.12/1.13): ``prob.status`` is "Optimal" for a
time-limited incumbent and even without any; HiGHS ignores SIGINT, keeps its thread
count for the whole process and stops at a gap of 1e-4 by default; CBC leaves values of
the LP relaxation behind and returns no bound. Every model is a minimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, Literal, Protocol

from shardwright.schema.errors import SolverFailure, SolverUnavailable
from shardwright.schema.result import Status

Backend = Literal["highs", "cbc"]

INTEGRALITY = 1e-5
"""Largest distance from an integer that is taken for rounding noise."""

ROW_SLACK = 1e-5
"""Largest violation of a row that is taken for rounding noise."""

_POLL_S = 0.05
_TOLERANCE = 1e-9
"""Of integrality and of rows. At 1e-6 HiGHS gave wrong optima here."""


class Limits(Protocol):
    """What an engine needs of ``search.base.SearchLimits`` (a room below this)."""

    @property
    def seed(self) -> int:
        """Random seed of the engine."""

    @property
    def stop(self) -> Callable[[], bool]:
        """Whether the user asked to stop."""

    def remaining_s(self) -> float:
        """Seconds left, never negative."""


@dataclass(frozen=True)
class EngineRun:
    """Outcome of one run: values by variable name, nothing without a solution."""

    status: Status
    values: dict[str, float] = field(default_factory=dict)
    objective: float | None = None
    bound: float | None = None

    @property
    def found(self) -> bool:
        """Whether there is a solution to read."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)

    def value(self, variable: Any) -> int:
        """Value of an integer variable; a fraction is a failure, not an answer."""
        if not self.found:
            raise SolverFailure(f"no values to read after {self.status}")
        value = self.values[variable.name]
        if abs(value - round(value)) > INTEGRALITY:
            raise SolverFailure(f"{variable.name} = {value} is not an integer")
        return round(value)


def run(
    problem: Any, limits: Limits, backend: Backend, *, presolve: bool = False
) -> EngineRun:
    """Minimise ``problem`` (a pulp.LpProblem) within what is left of ``limits``.

    Presolve is off unless asked for: HiGHS 1.13.1 with it calls a feasible program of
    ours infeasible (tests/regressions/highs-presolve-infeasible.json). Rows are to be
    scaled to coefficients of at most 1: answers that miss one by ``ROW_SLACK`` are
    lies, and what the engine says of them is not passed on.
    """
    if limits.stop() or limits.remaining_s() <= 0:
        return EngineRun(Status.UNKNOWN)
    solve = _run_cbc if backend == "cbc" else _run_highs
    found = solve(problem, limits, presolve)
    return found if _keeps_rows(problem, found) else EngineRun(Status.UNKNOWN)


def _keeps_rows(problem: Any, found: EngineRun) -> bool:
    """Whether the values satisfy every row; CBC calls an empty answer "Optimal" when
    it has lost the model."""
    if not found.found:
        return True
    for row in problem.constraints():
        left = sum(w * found.values[v.name] for v, w in row.items()) + row.constant
        over, under = left > ROW_SLACK, left < -ROW_SLACK
        if (row.sense <= 0 and over) or (row.sense >= 0 and under):
            return False
    return True


# -- HiGHS ---------------------------------------------------------------------------


_ATTEMPTS = ((_TOLERANCE, True), (_TOLERANCE, False), (1e-7, False))
"""Tolerance, and whether presolve stays as asked: HiGHS may end in a solve error."""


def _run_highs(problem: Any, limits: Limits, presolve: bool) -> EngineRun:
    for tolerance, as_asked in _ATTEMPTS:
        found = _run_highs_once(problem, limits, presolve is as_asked, tolerance)
        if found is not None:
            return found
    return EngineRun(Status.UNKNOWN)


def _run_highs_once(
    problem: Any, limits: Limits, presolve: bool, tolerance: float
) -> EngineRun | None:
    """None when HiGHS lost its way numerically."""
    import pulp

    if not pulp.HiGHS(msg=False).available():
        raise SolverUnavailable("highspy cannot be loaded beside ortools: see doctor")
    import highspy

    highspy.Highs.resetGlobalScheduler(True)
    engine = pulp.HiGHS(
        msg=False,
        gapRel=0.0,
        gapAbs=0.0,
        threads=1,
        timeLimit=limits.remaining_s(),
        random_seed=limits.seed,
        presolve="choose" if presolve else "off",
        mip_feasibility_tolerance=tolerance,
        primal_feasibility_tolerance=tolerance,
    )
    engine.createAndConfigureSolver(problem)
    _solve_in_thread(engine, problem, limits)
    return _read_highs(problem, highspy)


def _solve_in_thread(engine: Any, problem: Any, limits: Limits) -> None:
    """HiGHS works in a thread so that signals and ``stop`` reach this one."""
    done = Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            engine.buildSolverModel(problem)
            problem.solverModel.HandleUserInterrupt = True
            problem.solverModel.run()
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    Thread(target=work, daemon=True).start()
    _wait(done, limits, problem.solverModel.cancelSolve)
    if errors:
        raise errors[0]


def _wait(done: Event, limits: Limits, cancel: Callable[[], object]) -> None:
    """Poll; cancel again and again, since an early call may be lost."""
    try:
        while not done.wait(_POLL_S):
            if limits.stop() or limits.remaining_s() <= 0:
                cancel()
    except BaseException:
        while not done.wait(_POLL_S):
            cancel()
        raise


def _read_highs(problem: Any, highspy: Any) -> EngineRun | None:
    model, known = problem.solverModel, highspy.HighsModelStatus
    code, info = model.getModelStatus(), model.getInfo()
    if code == known.kSolveError:
        return None
    if code in (known.kInfeasible, known.kUnboundedOrInfeasible):
        return EngineRun(Status.INFEASIBLE)  # no model here is unbounded
    stopped = (known.kTimeLimit, known.kInterrupt, known.kSolutionLimit)
    if code != known.kOptimal and code not in stopped:
        raise SolverFailure(f"HiGHS returned {model.modelStatusToString(code)}")
    bound = _finite(info.mip_dual_bound)
    has_solution = info.primal_solution_status == 2
    if not has_solution or _finite(info.objective_function_value) is None:
        return EngineRun(Status.UNKNOWN, bound=bound)
    solution = model.getSolution().col_value
    values = {v.name: solution[v.index] for v in problem.variables()}
    status = Status.OPTIMAL if code == known.kOptimal else Status.FEASIBLE
    constant = float(problem.objective.constant)
    value = info.objective_function_value + constant
    bound = value if not _is_mip(problem) else bound
    if status is Status.OPTIMAL and bound is None:
        bound = value
    return EngineRun(status, values, value, bound)


def _is_mip(problem: Any) -> bool:
    return any(v.cat == "Integer" for v in problem.variables())


def _finite(value: float) -> float | None:
    return value if abs(value) < 1e30 else None


# -- CBC -----------------------------------------------------------------------------


def _run_cbc(problem: Any, limits: Limits, presolve: bool) -> EngineRun:
    """PuLP writes the model and reads the answer; the process is ours to stop."""
    import pulp

    engine = pulp.COIN_CMD(path=pulp.PULP_CBC_CMD.pulp_cbc_path, msg=False)
    if not engine.available():
        raise SolverUnavailable("PuLP's CBC is missing: see doctor")
    with TemporaryDirectory() as folder:
        mps, answer = Path(folder, "model.mps"), Path(folder, "answer.sol")
        variables, names, rows, _ = problem.writeMPS(str(mps), rename=1)
        options = _cbc_options(limits, presolve)
        arguments = [engine.path, str(mps), *options, "-solve"]
        arguments += ["-printingOptions", "all", "-solution", str(answer)]
        stopped = _cbc_process(arguments, limits)
        if stopped or not answer.exists():
            if not stopped:
                raise SolverFailure("CBC ended without an answer")
            return EngineRun(Status.UNKNOWN)
        read = engine.readsol_MPS(str(answer), problem, variables, names, rows)
        first_line = answer.read_text().partition("\n")[0]
    return _read_cbc(problem, read[1], first_line)


def _cbc_options(limits: Limits, presolve: bool) -> list[str]:
    return [
        "-sec",
        f"{limits.remaining_s():.3f}",
        "-timeMode",
        "elapsed",
        "-ratio",
        "0",
        "-allow",
        "0",
        "-presolve",
        "on" if presolve else "off",
        "-integerTolerance",
        str(_TOLERANCE),
        "-primalTolerance",
        str(_TOLERANCE),
        "-randomCbcSeed",
        str(limits.seed),
    ]


def _cbc_process(arguments: list[str], limits: Limits) -> bool:
    """Run it; whether it had to be ended."""
    done = Event()
    process = Popen(arguments, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)

    def wait() -> None:
        process.wait()
        done.set()

    Thread(target=wait, daemon=True).start()
    ended = False
    try:
        while not done.wait(_POLL_S):
            if limits.stop() or limits.remaining_s() <= -1.0:
                ended = True
                process.kill()
    finally:
        if not done.is_set():
            process.kill()
            process.wait()
    return ended


def _read_cbc(problem: Any, values: dict[str, float], first_line: str) -> EngineRun:
    """The first line: "Optimal - ...", "Infeasible - ...", "Integer infeasible - ...",
    "Stopped on time - objective value ..." (with or without "no integer solution")."""
    if first_line.startswith("Optimal"):
        value = _objective(problem, values)
        return EngineRun(Status.OPTIMAL, values, value, value)
    if first_line.startswith(("Infeasible", "Integer infeasible")):
        return EngineRun(Status.INFEASIBLE)
    if not first_line.startswith("Stopped"):
        raise SolverFailure(f"CBC returned {first_line!r}")
    if "no integer solution" in first_line or not _integral(problem, values):
        return EngineRun(Status.UNKNOWN)
    return EngineRun(Status.FEASIBLE, values, _objective(problem, values), None)


def _objective(problem: Any, values: dict[str, float]) -> float:
    terms = problem.objective.items()
    total = sum(weight * values[v.name] for v, weight in terms)
    return float(total + problem.objective.constant)


def _integral(problem: Any, values: dict[str, float]) -> bool:
    return all(
        abs(values[v.name] - round(values[v.name])) <= INTEGRALITY
        for v in problem.variables()
        if v.cat == "Integer"
    )
