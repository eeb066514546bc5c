"""``shardwright solve``: what is printed where, exit codes, options, signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Answered, FakeSolution, FakeSolve
from tests.plan.fleets import result, view

from shardwright.plan import PlanView
from shardwright.schema.errors import SolverFailure, UnsupportedRule
from shardwright.schema.plan import Plan
from shardwright.schema.result import Result, Status, StoppedBy

Call = Callable[..., Answered]


def test_tables_on_stdout_and_nothing_else(solve: FakeSolve, call: Call) -> None:
    done = call("solve", "any.yaml")
    assert done.code == 0
    assert done.stdout.startswith("OPTIMAL  TP2 PP4 DP1 on 8 of 8 GPUs")
    for title in ("GPU assignment", "Memory per GPU", "Requirements"):
        assert title in done.stdout
    assert "Memory by strategy" not in done.stdout
    assert done.stderr == ""


def test_json_is_one_document_in_the_published_order(
    solve: FakeSolve, call: Call
) -> None:
    done = call("solve", "any.yaml", "--json")
    document = json.loads(done.stdout)
    assert list(document)[:7] == [
        "schema_version",
        "status",
        "stopped_by",
        "gap",
        "objectives",
        "plan",
        "metrics",
    ]
    stage = document["plan"]["pools"][0]["replicas"][0]["stages"][1]
    assert stage["layers"] == [20, 40]
    assert stage["gpus"][0] == {"node": "node", "gpu": 2, "rank": 2}
    degrees = {"tp": 2, "attn_dp": 1, "cp": 1, "moe_tp": 2, "ep": 1, "moe_dp": 1}
    assert stage["shape"] == degrees
    assert Result.model_validate_json(done.stdout).status is Status.OPTIMAL


@pytest.mark.parametrize(
    ("status", "stopped_by", "code"),
    [
        (Status.OPTIMAL, "proof", 0),
        (Status.OPTIMAL, "gap", 0),
        (Status.FEASIBLE, "gap", 0),
        (Status.FEASIBLE, "time", 10),
        (Status.FEASIBLE, "memory", 10),
        (Status.FEASIBLE, "user", 130),
        (Status.INFEASIBLE, "proof", 20),
        (Status.UNKNOWN, "time", 30),
        (Status.UNKNOWN, "user", 130),
        (Status.INVALID, "error", 2),
        (Status.ERROR, "error", 70),
    ],
)
def test_exit_codes(
    solve: FakeSolve, call: Call, status: Status, stopped_by: StoppedBy, code: int
) -> None:
    solve.solution = FakeSolution(result(status, stopped_by, gap=None))
    done = call("solve", "any.yaml")
    assert done.code == code
    assert done.stdout.startswith(f"{status.value}  no plan")


def test_options_reach_the_search(solve: FakeSolve, call: Call) -> None:
    options = "--solver greedy --gap 0.1% --time-limit 7 --workers 3 --seed 5"
    fix = "--fix tp=4,layers=40+40,chunk=1024 --objective throughput,gpus"
    done = call("solve", "any.yaml", *options.split(), *fix.split())
    assert done.code == 0
    asked = solve.asked
    assert asked["solver"] == "greedy"
    assert asked["gap"] == Fraction(1, 1000)
    assert (asked["time_limit_s"], asked["workers"], asked["seed"]) == (7.0, 3, 5)
    one = asked["instance"]
    assert one.objective == ("throughput", "gpus")
    assert (one.fix.tp, one.fix.layers, one.fix.pp) == (4, (40, 40), None)
    assert one.fix.prefill_chunk_tokens == 1024
    assert asked["on_progress"] is None  # stderr is no terminal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fix", "tp=0"], "--fix tp: found '0'"),
        (["--fix", "tp=2,tp=4"], "each decision once"),
        (["--fix", "tp"], "--fix: found 'tp'"),
        (["--fix", "tqp=2"], "NAME=VALUE"),
        (["--fix", "layers=20+x"], "--fix layers: found 'x'"),
        (["--fix", "layers=20+20"], "--fix layers: found 40 layers in 2 stages"),
        (["--fix", "tp=999999999"], "--fix tp"),
        (["--objective", "speed"], "--objective: found 'speed'; one of gpus"),
        (["--objective", "gpus,gpus"], "each goal once"),
        (["--gap", "-1%"], "--gap"),
        (["--gap", "1/0"], "--gap"),
        (["--gap", "many"], "--gap"),
        (["--time-limit", "nan"], "--time-limit"),
        (["--time-limit", "-1"], "--time-limit"),
        (["--tables", "nope"], "--tables: found 'nope'"),
        (["--workers", "0"], "--workers"),
        (["--nope"], "--nope"),
    ],
)
def test_bad_options_are_refused_before_any_search(
    solve: FakeSolve, call: Call, arguments: list[str], words: str
) -> None:
    done = call("solve", "any.yaml", *arguments)
    assert done.code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert not solve.asked


def test_tables_can_be_chosen(solve: FakeSolve, call: Call) -> None:
    done = call("solve", "any.yaml", "--tables", "kv,memory")
    assert done.stdout.index("KV cache (reserve") < done.stdout.index("Memory per GPU")
    assert "OPTIMAL" not in done.stdout
    assert "Memory by strategy" in call("solve", "a", "--tables", "all").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_search_and_the_plan_is_printed(
    solve: FakeSolve, call: Call, number: signal.Signals
) -> None:
    seen = view("seed")

    def interrupt(asked: dict[str, Any]) -> None:
        assert not asked["stop"]()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked["stop"]()

    before = signal.getsignal(number)
    stopped = result(Status.FEASIBLE, "user", bound=7.0, gap=0.125)
    solve.act = interrupt
    solve.solution = FakeSolution(
        stopped, PlanView(seen.instance, seen.document, stopped)
    )
    done = call("solve", "any.yaml")
    assert done.code == 130
    assert done.stdout.startswith("FEASIBLE  TP2 PP4 DP1 on 8 of 8 GPUs, gap 12.50%")
    assert signal.getsignal(number) is before


def test_the_third_signal_ends_the_process(solve: FakeSolve, call: Call) -> None:
    def insist(asked: dict[str, Any]) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    solve.act = insist
    done = call("solve", "any.yaml")
    assert (done.code, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UnsupportedRule("greedy", "objective ttft"), 2, "does not model"),
        (SolverFailure("bad status"), 70, "internal error: bad status"),
        (ZeroDivisionError("oops"), 70, "ZeroDivisionError: oops"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    solve: FakeSolve, call: Call, error: BaseException, code: int, words: str
) -> None:
    def fail(asked: dict[str, Any]) -> None:
        raise error

    solve.act = fail
    done = call("solve", "any.yaml")
    assert done.code == code
    assert words in done.stderr
    assert done.stdout == ""


def test_a_fixed_plan_that_breaks_rules_is_shown(solve: FakeSolve, call: Call) -> None:
    seen = view("mixed")
    found = result(Status.INFEASIBLE, value=None, bound=None, gap=None)
    solve.solution = FakeSolution(found, None, seen, seen.report)
    done = call("solve", "any.yaml", "--tables", "gpus")
    assert done.code == 20
    assert "The plan that was fixed, evaluated all the same, breaks:" in done.stdout
    assert "tpot_limit: replica 1" in done.stdout
    assert "GPU assignment" in done.stdout


def test_saved_files_are_complete(solve: FakeSolve, call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    printed = call("solve", "any.yaml", "--save-dir", str(folder))
    assert sorted(p.name for p in folder.iterdir()) == [
        "plan.json",
        "result.json",
        "tables.txt",
    ]
    assert (folder / "tables.txt").read_text() == printed.stdout
    plan = Plan.model_validate_json((folder / "plan.json").read_text())
    assert plan == view("seed").document
    saved = Result.model_validate_json((folder / "result.json").read_text())
    assert saved.plan == plan


def test_a_folder_that_cannot_be_written_is_refused(
    solve: FakeSolve, call: Call, tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    done = call("solve", "any.yaml", "--save-dir", str(occupied))
    assert done.code == 2
    assert "--save-dir" in done.stderr
    # the answer itself is not lost
    assert done.stdout.startswith("OPTIMAL")


def test_progress_shows_on_a_terminal_only(
    solve: FakeSolve, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardwright.cli import progress

    class Improvement:
        value, bound = 1234, None

    def report(asked: dict[str, Any]) -> None:
        asked["on_progress"](Improvement())

    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    solve.act = report
    done = call("solve", "any.yaml")
    assert done.code == 0
    assert done.stdout.startswith("OPTIMAL")
    assert progress.words(Improvement()) == "best 1,234  bound -"
    solve.act = lambda asked: None
    call("solve", "any.yaml", "--quiet")
    assert solve.asked["on_progress"] is None


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [("afd=4+4", "afd", (4, 4)), ("afd=5+3,ping_pong=3", "ping_pong", 3)],
)
def test_fix_reads_disaggregated_splits(text: str, field: str, value: object) -> None:
    from shardwright.cli.options import parse_fix
    from shardwright.schema.instance import Fix

    assert getattr(parse_fix(text, Fix()), field) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("afd=4", "attention and expert GPUs of a stage, as 4+4"),
        ("afd=4+0", "a whole number from 1"),
        ("afd=2+2+4", "attention and expert GPUs of a stage, as 4+4"),
        ("ping_pong=1", "a whole number from 2"),
    ],
)
def test_fix_refuses_splits_that_are_none(text: str, words: str) -> None:
    from shardwright.cli.options import parse_fix
    from shardwright.schema.errors import InvalidInstance
    from shardwright.schema.instance import Fix

    with pytest.raises(InvalidInstance, match="--fix") as refused:
        parse_fix(text, Fix())
    assert words in str(refused.value)
