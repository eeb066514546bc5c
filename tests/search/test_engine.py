"""The CP-SAT engine: exact numbers, honest statuses, interruption."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic
from typing import Any

import pytest
from ortools.sat.python.cp_model import CpModel
from tests.agreement import regression_documents
from tests.generators import instance_of

from shardwright.formulations.cpsat.engine import EngineRun, run
from shardwright.formulations.cpsat.model import build
from shardwright.problem import compile_problem
from shardwright.schema.errors import SolverFailure
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits


def limits() -> SearchLimits:
    """A clock of its own: limits count from the moment they are made."""
    return SearchLimits(time_limit_s=20, workers=1)


def endless() -> CpModel:
    """Packing 60 weights into 8 bins evenly: feasible at once, not proven in time."""
    model, rng = CpModel(), Random(1)
    weights = [rng.randint(10**6, 10**7) for _ in range(60)]
    bins = [[model.new_bool_var("") for _ in range(8)] for _ in weights]
    for row in bins:
        model.add_exactly_one(row)
    top = model.new_int_var(0, 10**9, "top")
    for b in range(8):
        load = sum(w * row[b] for w, row in zip(weights, bins, strict=True))
        model.add(load <= top)
    model.minimize(top)
    return model


@pytest.mark.parametrize("maximise", [False, True])
def test_objective_and_bound_are_exact_beyond_doubles(maximise: bool) -> None:
    model = CpModel()
    x = model.new_int_var(2**53 + 1, 2**53 + 3, "x")
    b = model.new_bool_var("b")
    goal = x + 2 * b.negated() + 7
    model.maximize(goal) if maximise else model.minimize(goal)
    found = run(model, limits())
    expected = 2**53 + (12 if maximise else 8)
    assert found.status is Status.OPTIMAL
    assert (found.objective, found.bound) == (expected, expected)
    assert found.value(x) == 2**53 + (3 if maximise else 1)
    assert found.value(b) == (0 if maximise else 1) == 1 - found.value(b.negated())


def test_infeasible_has_no_values() -> None:
    model = CpModel()
    x = model.new_bool_var("x")
    model.add(x >= 2)
    found = run(model, limits())
    assert found == EngineRun(Status.INFEASIBLE, seconds=found.seconds)
    with pytest.raises(SolverFailure):
        found.value(x)


def test_without_objective_there_is_no_bound() -> None:
    model = CpModel()
    x = model.new_bool_var("x")
    model.add(x >= 1)
    found = run(model, limits())
    assert (found.status, found.objective, found.bound) == (Status.OPTIMAL, None, None)


def test_invalid_models_and_parameters_are_failures() -> None:
    model = CpModel()
    big = [model.new_int_var(0, 2**61, "") for _ in range(2)]
    model.add(4 * big[0] + 8 * big[1] <= 3)
    with pytest.raises(SolverFailure, match="overflow"):
        run(model, limits())
    with pytest.raises(SolverFailure, match="MODEL_INVALID"):
        run(CpModel(), limits(), parameters={"num_workers": -1})


def test_float_objectives_are_refused() -> None:
    model = CpModel()
    model.minimize(1.5 * model.new_bool_var("x"))
    with pytest.raises(SolverFailure, match="not integers"):
        run(model, limits())


def test_time_limit_returns_the_incumbent_and_a_bound() -> None:
    begun = monotonic()
    found = run(endless(), SearchLimits(time_limit_s=1.0, workers=1))
    assert monotonic() - begun < 4
    assert found.status is Status.FEASIBLE
    assert found.objective is not None and found.bound is not None
    assert found.bound < found.objective


def test_a_stop_ends_the_run() -> None:
    begun = monotonic()
    stopping = SearchLimits(workers=1, stop=lambda: monotonic() > begun + 0.5)
    found = run(endless(), stopping)
    assert monotonic() - begun < 4
    assert found.status in (Status.FEASIBLE, Status.UNKNOWN)


def test_no_time_is_unknown_without_starting() -> None:
    for over in (SearchLimits(time_limit_s=0), SearchLimits(stop=lambda: True)):
        assert run(endless(), over) == EngineRun(Status.UNKNOWN)


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """KeyboardInterrupt in the main thread, as Ctrl-C raises it."""
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_an_exception_leaves_after_the_engine_has_ended() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored in a background job
    with pytest.raises(KeyboardInterrupt), interrupt_after(0.5):
        run(endless(), limits())
    assert signal.getsignal(signal.SIGINT) is before


def test_solutions_are_reported_and_their_errors_raised() -> None:
    seen: list[EngineRun] = []
    model = endless()
    found = run(model, SearchLimits(time_limit_s=1, workers=1), on_solution=seen.append)
    assert seen and seen[-1].objective == found.objective

    def fail(_: EngineRun) -> None:
        raise LookupError("in the callback")

    with pytest.raises(LookupError, match="in the callback"):
        run(model, limits(), on_solution=fail)


def wronged() -> Any:
    """The model of our own that CP-SAT 9.15 wrongly calls infeasible."""
    documents = dict(regression_documents())
    document = documents["cpsat-5293-communication-share"]
    program = build(compile_problem(instance_of(document)))
    assert program is not None
    return program.model


def test_the_engine_is_not_fooled_by_its_presolve() -> None:
    assert run(wronged(), limits()).status is Status.OPTIMAL
    plain = run(wronged(), limits(), parameters={"cp_model_presolve": False})
    assert plain.status is Status.OPTIMAL


def test_sentinel_or_tools_5293() -> None:
    """When this fails the bug is gone: drop ``presolve_inclusion_work_limit``."""
    default = {"presolve_inclusion_work_limit": 100_000_000}
    assert run(wronged(), limits(), parameters=default).status is Status.INFEASIBLE
