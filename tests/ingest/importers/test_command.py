"""``shardwright import`` and ``shardwright.import_cluster``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.ingest.importers.samples import DATA
from typer.testing import CliRunner

import shardwright
from shardwright.cli.app import app
from shardwright.ingest.document import parse


@pytest.fixture(autouse=True)
def in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["import", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_table_is_the_answer_and_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    code, out, err = run("bridged.topo.txt", "bridged.gpus.csv", "-o", str(path))
    assert (code, err) == (0, "")
    assert out.startswith("1 node, 8 GPUs\n")
    assert "3 x 2 + 2 x 1" in out
    assert parse(path.read_bytes(), str(path))["nodes"][0]["islands"][0] == [0, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_a_dash_prints_the_file_and_tells_the_rest_on_stderr() -> None:
    code, out, err = run("nodes.json", "-o", "-")
    assert code == 0
    assert parse(out.encode(), "c.yaml")["nodes"][0]["name"] == "h100"
    assert "8 nodes, 52 GPUs, 39 of them usable" in err


def test_json_has_cluster_sources_and_warnings() -> None:
    code, out, _ = run("nodes.json", "--json")
    assert code == 0
    document = json.loads(out)
    assert set(document) == {"cluster", "sources", "warnings"}
    assert document == shardwright.import_cluster(["nodes.json"]).as_dict()


def test_options_reach_the_import() -> None:
    code, out, _ = run("pcie-4-2socket.topo.txt", "--gpu", "L40S",
                       "--pcie-islands", "numa")  # fmt: skip
    assert code == 0
    assert "2 x 2" in out


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    bad, path = tmp_path / "bad.txt", tmp_path / "c.yaml"
    bad.write_text("\tGPU0\tGPU1\nGPU0\tX\tNV4\nGPU1\tNV2\tX\n")
    code, out, err = run(str(bad), "--gpu", "L4", "-o", str(path))
    assert (code, out) == (2, "")
    assert "line 3: found NV2 for GPU1 and GPU0; NV4, as line 2 has it" in err
    assert not path.exists()
    code, _, err = run("nodes.json", "-o", str(tmp_path / "no" / "c.yaml"))
    assert code == 2
    assert "a path to write to" in err
