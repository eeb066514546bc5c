"""solve --certificate, certify and check --certificate, from file to file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shardwright.cli.app import app

INSTANCES = Path(__file__).parents[2] / "instances"
SIX = str(INSTANCES / "production" / "llama3-70b-6of8xh100.yaml")
MIXTRAL = str(INSTANCES / "moe" / "mixtral-8x7b-8xh100.yaml")


def call(*arguments: str) -> Result:
    """One command."""
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What ``solve --save-dir DIR --certificate`` leaves behind."""
    made = tmp_path_factory.mktemp("answer")
    done = call("solve", SIX, "--quiet", "--save-dir", str(made), "--certificate")
    assert done.exit_code == 0
    assert "certificate.json: throughput, gpus;" in done.stderr
    return made


def checked(folder: Path, plan: str = "result.json", *options: str) -> Result:
    """``check`` with the folder's certificate."""
    certificate = str(folder / "certificate.json")
    return call(
        "check", SIX, str(folder / plan), "--certificate", certificate, *options
    )


def test_a_result_is_re_checked_completely(folder: Path) -> None:
    done = checked(folder)
    assert done.exit_code == 0
    first, *rest = done.stdout.splitlines()
    assert first == "certificate: complete, re-checked in integers without a solver"
    assert "no plan exceeds 436.497 tokens/s" in rest[0]
    assert rest[0].endswith("optimal")
    assert "no plan is below 4 GPUs" in rest[1]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_as_json(folder: Path) -> None:
    done = checked(folder, "result.json", "--json")
    found = json.loads(done.stdout)["certificate"]
    assert found["complete"]
    assert [goal["goal"] for goal in found["goals"]] == ["throughput", "gpus"]
    assert all(goal["optimal"] for goal in found["goals"])


def test_a_bare_plan_leaves_the_grid_to_the_solver(folder: Path) -> None:
    done = checked(folder, "plan.json")
    assert done.exit_code == 10
    assert "grid: that it has no other operating points" in done.stdout


def test_a_result_that_claims_more_is_not_accepted(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    result["objectives"][0]["bound"] -= 1
    (folder / "more.json").write_text(json.dumps(result))
    done = checked(folder, "more.json")
    assert done.exit_code == 10
    assert "part of the claim rests on the solver" in done.stdout
    words = " ".join(done.stdout.split())
    assert "that it is 435.497 tokens/s rests on the solver" in words


def test_a_certificate_of_another_instance_refutes_or_is_refused(folder: Path) -> None:
    certificate = json.loads((folder / "certificate.json").read_text())
    for claim in certificate["claims"]:
        claim["chains"] = claim["chains"][:-3]
    (folder / "short.json").write_text(json.dumps(certificate))
    short = str(folder / "short.json")
    done = call("check", SIX, str(folder / "result.json"), "--certificate", short)
    assert done.exit_code == 10
    assert "nothing is proven at operating points" in done.stdout


def test_certify_writes_the_same(folder: Path) -> None:
    out = folder / "again.json"
    done = call("certify", SIX, str(folder / "result.json"), "--out", str(out))
    assert done.exit_code == 0
    assert out.read_text() == (folder / "certificate.json").read_text()
    other = str(INSTANCES / "production" / "llama3-70b-7of8xh100.yaml")
    refused = call("certify", other, str(folder / "result.json"), "--out", str(out))
    assert refused.exit_code == 2
    assert "instance_sha256" in refused.stderr


def test_what_is_not_covered_is_said(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text("of an earlier answer")
    options = ("--quiet", "--save-dir", str(tmp_path), "--certificate")
    done = call("solve", MIXTRAL, *options)
    assert done.exit_code == 0
    assert "no certificate of experts: the bounds rest on the solver" in done.stderr
    assert not (tmp_path / "certificate.json").exists()


def test_a_certificate_needs_a_folder() -> None:
    done = call("solve", SIX, "--certificate")
    assert done.exit_code == 2
    assert "--save-dir" in done.stderr


def test_that_no_plan_exists_is_re_checked(tmp_path: Path) -> None:
    alone = str(INSTANCES / "production" / "llama3-70b-1xh100.yaml")
    options = ("--quiet", "--save-dir", str(tmp_path), "--certificate")
    assert call("solve", alone, *options).exit_code == 20
    files = (str(tmp_path / "result.json"), "--certificate")
    done = call("check", alone, *files, str(tmp_path / "certificate.json"))
    assert done.exit_code == 0
    assert done.stdout.startswith("certificate: no plan exists, re-checked")
    wrong = call("check", SIX, *files, str(tmp_path / "certificate.json"))
    assert wrong.exit_code in (2, 10)
