"""The planner's example runs, and its year adds up."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from tests.planning.small import EXAMPLES


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "capacity_plan", EXAMPLES / "capacity_plan.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity_plan"] = module
    spec.loader.exec_module(module)
    return module


def test_the_quick_year(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example()
    monkeypatch.setattr(sys, "argv", ["capacity_plan.py", "--quick"])
    module.main()
    printed = capsys.readouterr().out
    assert "OPTIMAL" in printed
    assert "The year:" in printed


def test_equal_quarters_move_nothing_and_growth_costs_more() -> None:
    module = example()
    first, second, third = module.quarters({"a": 8.0, "b": 8.0, "c": 16.0})
    assert first.bound == first.usd_per_hour
    assert second.moved_gb == 0
    assert second.stays > 0
    assert third.usd_per_hour > second.usd_per_hour
    assert third.moved_gb > 0
