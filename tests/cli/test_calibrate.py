"""``shardwright calibrate`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwright.cli.app import app
from shardwright.ingest.operators import load_operators

DATA = Path(__file__).parents[2] / "benchmarks" / "calibration" / "data"
NCCL = str(DATA / "nccl.csv.gz")


def test_curves_are_written_with_their_errors(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    ran = CliRunner().invoke(app, ["calibrate", NCCL, "--gpu", "H200", "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    assert f"4 curves of H200 written to {out}" in ran.stdout
    assert "held out %" in ran.stdout
    # the first line names the file
    assert max(map(len, ran.stdout.splitlines()[1:])) <= 100
    assert {c.family for c in load_operators(out).curves} == {
        "all_gather",
        "all_reduce",
        "all_to_all",
        "reduce_scatter",
    }


def test_json_is_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, ["calibrate", NCCL, "--gpu", "A100-80", "--json"])
    document = json.loads(ran.stdout)
    assert document["written"] == "A100-80.operators.yaml"
    assert (tmp_path / "A100-80.operators.yaml").is_file()
    assert all(curve["held_out_%"] < 10 for curve in document["curves"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MEASUREMENTS"),
        ([NCCL], "--gpu"),
        ([NCCL, "--gpu", "H2000"], "--gpu: found"),
        ([NCCL, "--gpu", "L4"], "measurements of gpu L4"),
        (["none.csv", "--gpu", "L4"], "none.csv is refused"),
        (["none.csv", "--measure"], "--measure: found none.csv besides"),
    ],
)
def test_refusals_name_the_field_and_write_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, ["calibrate", *arguments])
    assert ran.exit_code == 2
    assert said in ran.stderr and not ran.stdout
    assert not list(tmp_path.iterdir())
