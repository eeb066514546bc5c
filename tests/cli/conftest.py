"""A command line whose search is a double: it returns what a test wants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from tests.plan.fleets import result, view
from typer.testing import CliRunner

from shardwright.cli.app import app
from shardwright.plan import PlanView
from shardwright.schema.result import Result


@dataclass
class Answered:
    """What came out of one call."""

    code: int
    stdout: str
    stderr: str


@dataclass
class FakeSolution:
    """As ``Solution``."""

    result: Result
    plan: PlanView | None = None
    fixed: PlanView | None = None
    fixed_report: Any = None


@dataclass
class FakeSolve:
    """As ``solve``; ``act`` runs inside the call, ``asked`` is what it was given."""

    solution: FakeSolution
    act: Callable[[dict[str, Any]], None] = lambda asked: None
    asked: dict[str, Any] = field(default_factory=dict)

    def __call__(self, instance: Any, **parameters: Any) -> FakeSolution:
        self.asked = {"instance": instance, **parameters}
        self.act(self.asked)
        return self.solution


@pytest.fixture
def solve(monkeypatch: pytest.MonkeyPatch) -> FakeSolve:
    """The double, in place of ``shardwright.solve`` and of the loader."""
    seen = view("seed")
    assert seen.result is not None
    fake = FakeSolve(FakeSolution(seen.result, seen))
    module = ModuleType("shardwright.solve")
    module.solve = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shardwright.solve", module)
    monkeypatch.setattr("shardwright.ingest.load", lambda path: seen.instance)
    return fake


@pytest.fixture
def call() -> Callable[..., Answered]:
    """Run the command line in this process."""

    def run(*arguments: str) -> Answered:
        done = CliRunner().invoke(app, list(arguments))
        return Answered(done.exit_code, done.stdout, done.stderr)

    return run


__all__ = ["Answered", "FakeSolution", "FakeSolve", "result"]
