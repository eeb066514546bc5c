"""The other commands, and the real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answered
from tests.plan.fleets import view

from shardwright._version import __version__
from shardwright.check import check
from shardwright.ingest import instance_sha256, load, load_plan
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

Call = Callable[..., Answered]

ROOT = Path(__file__).parents[2]
SEED = ROOT / "instances" / "seeds" / "llama3-70b-8xh100-means.yaml"
LARGE = ROOT / "instances" / "heterogeneous" / "llama3-70b-8xh100-8xa100-16xl4.yaml"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The seed as files: instance and plan."""
    seen = view("seed")
    # a file without a margin would be given one
    limits = seen.instance.limits.model_copy(update={"latency_margin": 0.0})
    asked = seen.instance.model_copy(update={"limits": limits})
    made = seen.document.model_copy(update={"instance_sha256": instance_sha256(asked)})
    instance, plan = tmp_path / "instance.json", tmp_path / "plan.json"
    instance.write_text(asked.model_dump_json(by_alias=True))
    plan.write_text(made.model_dump_json(by_alias=True))
    return str(instance), str(plan)


def test_check_names_what_is_broken(files: tuple[str, str], call: Call) -> None:
    done = call("check", *files)
    assert done.code == 5
    assert "request_rate: plan: output rate" in done.stdout
    assert (
        "request_rate"
        in json.loads(call("check", *files, "--json").stdout)["violations"][0].values()
    )


def test_check_passes_a_plan_that_holds(
    files: tuple[str, str], call: Call, tmp_path: Path
) -> None:
    document = json.loads(Path(files[0]).read_text())
    document["workload"]["request_rate_per_s"] = 5
    relaxed = tmp_path / "relaxed.json"
    relaxed.write_text(json.dumps(document))
    plan = json.loads(Path(files[1]).read_text())
    plan["instance_sha256"] = ""
    Path(files[1]).write_text(json.dumps(plan))
    done = call("check", str(relaxed), files[1])
    assert (done.code, done.stdout.splitlines()[0][:15]) == (0, "The plan holds:")


def test_a_missing_file_is_bad_input(call: Call) -> None:
    for arguments in (("solve", "nope.yaml"), ("check", "nope.yaml", "nope.json")):
        done = call(*arguments)
        assert done.code == 2
        assert "nope" in done.stderr


@pytest.mark.parametrize("name", ["instance", "plan", "result"])
def test_schemas(call: Call, name: str) -> None:
    document = json.loads(call("schema", name).stdout)
    assert document["title"].startswith(f"shardwright {name}")


def test_an_unknown_schema_is_bad_input(call: Call) -> None:
    assert call("schema", "nope").code == 2


def test_doctor_finds_this_installation_fine(call: Call) -> None:
    done = call("doctor")
    assert done.code == 0, done.stdout
    assert "ortools beside highspy" in done.stdout
    assert "BAD" not in done.stdout


def test_doctor_knows_the_clash(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwright.cli.health.version", lambda name: "1.15.0")
    done = call("doctor")
    assert done.code == 70
    assert "highspy 1.15.0 does not work here" in done.stdout


def test_version_and_help(call: Call) -> None:
    assert call("--version").stdout.strip() == __version__
    assert "solve" in call("--help").stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "shardwright.cli", *arguments]


def test_the_seed_end_to_end(tmp_path: Path) -> None:
    saved = tmp_path / "out"
    run = subprocess.run(
        command("solve", str(SEED), "--save-dir", str(saved)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("OPTIMAL")
    again = subprocess.run(
        command("check", str(SEED), str(saved / "result.json")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (again.returncode, again.stderr) == (0, "")


def interrupted(after_s: float) -> tuple[str, str, int]:
    """stdout, stderr and exit code of a solve that gets Ctrl-C."""
    process = subprocess.Popen(
        command("solve", str(LARGE), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    return *process.communicate(timeout=30), process.returncode


def test_an_interrupted_search_prints_a_plan_that_holds() -> None:
    for after_s in (3, 6, 12):  # a busy machine may take long to load the libraries
        stdout, stderr, code = interrupted(after_s)
        if stdout:
            break
    document = json.loads(stdout)
    assert stderr == ""
    if document["stopped_by"] == "user":  # else it was proven before
        assert code == 130
    if document["plan"] is None:  # a slow machine may not have found one yet
        assert document["status"] == "UNKNOWN"
    else:
        plan = Plan.model_validate_json(json.dumps(document["plan"]))
        assert check(load(LARGE), plan).ok


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = " ".join([*command("schema", "instance"), "| head -1"])
    script = f"set -o pipefail; {line}"
    run = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_instances_of_the_tests_survive_their_files(files: tuple[str, str]) -> None:
    assert isinstance(load(files[0]), Instance)
    assert load_plan(files[1]).pools == view("seed").document.pools
