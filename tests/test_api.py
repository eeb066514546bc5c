"""The public face: what README shows works, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import shardwright as sw

ROOT = Path(__file__).resolve().parents[1]
SEED = ROOT / "instances/seeds/llama3-70b-8xh100-means.yaml"


def test_load_solve_table_check() -> None:
    instance = sw.load(SEED)
    result = sw.solve(instance, time_limit_s=30)
    assert result.result.status is sw.Status.OPTIMAL
    assert "Primary" in result.plan.table("gpus")
    sw.check(instance, result.plan).raise_if_bad()


@pytest.mark.parametrize(
    "before", ["", "import shardwright.solve, shardwright.check", "sw.solve; sw.check"]
)
def test_functions_survive_the_import_of_their_modules(before: str) -> None:
    """`sw.solve` and `sw.check` name a submodule each and stay callable."""
    program = f"""
import shardwright as sw
{before}
instance = sw.load({str(SEED)!r})
for _ in range(2):
    solution = sw.solve(instance)
    assert sw.check(instance, solution.plan.document).ok
from shardwright.solve import Solution
from shardwright.check import RULES
assert RULES and isinstance(solution, Solution)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    for name in sw.__all__:
        assert getattr(sw, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sw.nothing
