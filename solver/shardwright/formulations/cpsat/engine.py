"""Runs a CP-SAT model: interruptible, within its time, every number an exact int.

What it guards against (ortools 9.15): values read after a failure are uninitialised
memory; objective and bound are doubles; an invalid model or parameter is a status,
not an exception; the default SIGINT handler kills the process; ``stop_search`` before
the search began is ignored, so it is repeated until the engine returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from shardwright.schema.errors import SolverFailure
from shardwright.schema.result import Status

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

_POLL_S = 0.05
_EXACT_DOUBLE = 2**52


class Limits(Protocol):
    """What an engine needs of ``search.base.SearchLimits`` (a room below this)."""

    @property
    def workers(self) -> int:
        """Threads to use."""

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
    """Outcome of one run. ``values`` is empty without a solution.

    ``objective`` and ``bound`` are in the model's own sense (a bound from above when
    it maximises); both are None for a model without objective, and ``bound`` is None
    when nothing was proven. INFEASIBLE has neither.
    """

    status: Status
    values: tuple[int, ...] = ()
    objective: int | None = None
    bound: int | None = None
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        """Whether there is a solution to read."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)

    def value(self, variable: Any) -> int:
        """Value of a variable or of a literal's negation; never after a failure."""
        if not self.found:
            raise SolverFailure(f"no values to read after {self.status}")
        if isinstance(variable, int):
            return variable
        index = int(variable.index)
        return self.values[index] if index >= 0 else 1 - self.values[-index - 1]


@dataclass(frozen=True)
class _Objective:
    """sign * (sum of coefficient * variable + offset), all integers."""

    terms: tuple[tuple[int, int], ...]
    offset: int
    sign: int

    @classmethod
    def of(cls, model: CpModel) -> _Objective | None:
        if not model.has_objective():
            return None
        proto = model.proto
        if proto.has_floating_point_objective():  # reading the field would create it
            raise SolverFailure("the objective has coefficients that are not integers")
        o = proto.objective
        pairs = tuple(zip(o.vars, o.coeffs, strict=True))
        scale = o.scaling_factor or 1.0
        if scale not in (1.0, -1.0) or o.offset != int(o.offset):
            raise SolverFailure(f"objective scaled by {scale}, offset {o.offset}")
        return cls(pairs, int(o.offset), int(scale))

    def outer(self, inner: int) -> int:
        return self.sign * (inner + self.offset)

    def value(self, values: tuple[int, ...]) -> int:
        total = 0
        for index, weight in self.terms:
            v = values[index] if index >= 0 else -values[-index - 1]
            total += weight * v
        return self.outer(total)


def run(
    model: CpModel,
    limits: Limits,
    *,
    workers: int | None = None,
    on_solution: Callable[[EngineRun], None] | None = None,
    parameters: dict[str, Any] | None = None,
) -> EngineRun:
    """Solve ``model`` within what is left of ``limits``; a user's stop ends it.

    ``on_solution`` is called in the engine's thread for every better solution;
    what it raises is raised here. Without a time limit hit or a stop, one worker
    makes the run deterministic.
    """
    started = monotonic()
    reason = model.validate()
    if reason:
        raise SolverFailure(f"invalid CP-SAT model: {reason}")
    objective = _Objective.of(model)
    if limits.stop() or limits.remaining_s() <= 0:
        return EngineRun(Status.UNKNOWN)
    solver = _solver(limits, workers or limits.workers, parameters or {})
    proven = _watch_bound(solver, objective)
    callback = _callback(objective, on_solution, started) if on_solution else None
    code = _run_in_thread(solver, model, callback, limits)
    status = _status(code)
    return _outcome(solver, status, objective, proven, monotonic() - started)


def _solver(limits: Limits, workers: int, parameters: dict[str, Any]) -> Any:
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    p = solver.parameters
    p.catch_sigint_signal = False
    p.log_search_progress = False
    p.num_workers = workers
    p.random_seed = limits.seed
    p.max_time_in_seconds = limits.remaining_s()
    p.relative_gap_limit = 0.0
    p.absolute_gap_limit = 0.0
    # This part of presolve proves wrong things in 9.15 (google/or-tools #5293, open;
    # tests/search/test_engine.py holds our own case): false INFEASIBLE, wrong optima.
    p.presolve_inclusion_work_limit = 0
    for name, value in parameters.items():
        setattr(p, name, value)
    return solver


def _watch_bound(solver: Any, objective: _Objective | None) -> list[float]:
    """Last bound that the search reported, the only one to trust after UNKNOWN."""
    proven: list[float] = []

    def keep(bound: float) -> None:
        proven[:] = [bound]

    if objective is not None:
        solver.best_bound_callback = keep
    return proven


def _run_in_thread(solver: Any, model: CpModel, callback: Any, limits: Limits) -> Any:
    """The engine works in a thread so that signals and ``stop`` reach this one."""
    done = Event()
    out: list[Any] = []

    def work() -> None:
        try:
            out.append(solver.solve(model, callback))
        except BaseException as error:
            out.append(error)
        finally:
            done.set()

    Thread(target=work, daemon=True).start()
    try:
        while not done.wait(_POLL_S):
            if limits.stop() or limits.remaining_s() <= 0:
                solver.stop_search()
    except BaseException:
        _halt(solver, done)
        raise
    if isinstance(out[0], BaseException):
        raise out[0]
    return out[0]


def _halt(solver: Any, done: Event) -> None:
    """End the engine before an exception leaves: its thread reads our model."""
    while not done.wait(_POLL_S):
        solver.stop_search()


def _status(code: Any) -> Status:
    known = {s.value: s for s in Status}
    status = known.get(code.name)
    if status in (None, Status.INVALID, Status.ERROR):
        raise SolverFailure(f"CP-SAT returned {code.name}")
    assert status is not None
    return status


def _outcome(
    solver: Any,
    status: Status,
    objective: _Objective | None,
    proven: list[float],
    seconds: float,
) -> EngineRun:
    if status is Status.INFEASIBLE:
        return EngineRun(status, seconds=seconds)
    if status is Status.UNKNOWN:
        return EngineRun(status, bound=_safe_bound(objective, proven), seconds=seconds)
    response = solver.response_proto
    values = tuple(response.solution)
    if objective is None:
        return EngineRun(status, values, seconds=seconds)
    value = objective.value(values)
    bound = objective.outer(int(response.inner_objective_lower_bound))
    if bound != value:
        status = Status.FEASIBLE  # "OPTIMAL" may also mean within a gap limit
    return EngineRun(status, values, value, bound, seconds)


def _safe_bound(objective: _Objective | None, proven: list[float]) -> int | None:
    if objective is None or not proven or not abs(proven[0]) < _EXACT_DOUBLE:
        return None
    return round(proven[0])


def _callback(
    objective: _Objective | None,
    on_solution: Callable[[EngineRun], None],
    started: float,
) -> Any:
    from ortools.sat.python import cp_model

    class Relay(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
        def on_solution_callback(self) -> None:
            response = self.response_proto
            values = tuple(response.solution)
            value = objective.value(values) if objective else None
            bound = (
                objective.outer(int(response.inner_objective_lower_bound))
                if objective
                else None
            )
            seconds = monotonic() - started
            on_solution(EngineRun(Status.FEASIBLE, values, value, bound, seconds))

    return Relay()
