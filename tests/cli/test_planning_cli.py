"""The planning commands as a user runs them: output, files, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import pytest
from tests.planning.small import CHAT, LIMIT, RATE
from typer.testing import CliRunner

from shardwright.cli.app import app


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.stderr


def sweep_file(folder: Path, rates: Sequence[float]) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(
        f"instance: {CHAT}\nvary:\n  {RATE}: {[*rates]}\ntime_limit_s: 30\n",
        encoding="utf-8",
    )
    return path


def test_sweep_prints_rows_and_leaves_files(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, [8, 32])
    code, out, _ = run("sweep", str(file), "--out", str(tmp_path / "o"), "--json")
    assert code == 0
    document = json.loads(out)
    assert document["counts"] == {"OPTIMAL": 2}
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "journal.jsonl", "results.csv", "results.jsonl",
    ]  # fmt: skip
    code, out, _ = run("sweep", str(file), "--out", str(tmp_path / "o"))
    assert code == 0
    assert "2 of them were in the journal, 0 solved now" in out


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("vary: {}\n", 2, "instance"),
        (f"instance: {CHAT}\nvary: {{{RATE}: [-1]}}\n", 2, RATE),
        (f"instance: {CHAT}\nvary: {{{LIMIT}: [0.001]}}\n", 0, "INFEASIBLE"),
    ],
)
def test_sweep_exit_codes(tmp_path: Path, text: str, code: int, words: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    got, out, err = run("sweep", str(path))
    assert got == code
    assert words in out + err


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(
    tmp_path: Path,
) -> None:
    file, out = sweep_file(tmp_path, [2 + k for k in range(8)]), tmp_path / "o"
    command = [sys.executable, "-m", "shardwright.cli", "sweep", str(file)]
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", "1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    )
    journal, begun = out / "journal.jsonl", monotonic()
    while process.poll() is None and monotonic() - begun < 60:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 2:
            break
        sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in printed
    kept = journal.read_bytes().splitlines()
    assert 2 <= len(kept) < 8
    code, text, _ = run("sweep", str(file), "--out", str(out), "--json")
    assert code == 0
    assert json.loads(text)["kept"] == len(kept)
    assert journal.read_bytes().splitlines()[: len(kept)] == kept
    assert len(journal.read_bytes().splitlines()) == 8


def test_pareto_prints_and_draws(tmp_path: Path) -> None:
    drawing = tmp_path / "front.svg"
    code, out, _ = run(
        "pareto", str(CHAT), "--front", "gpus,rate", "--points", "3",
        "--svg", str(drawing),
    )  # fmt: skip
    assert code == 0
    assert "proven" in out
    assert drawing.read_text(encoding="utf-8").startswith("<svg")
    code, _, err = run("pareto", str(CHAT), "--front", "gpus,luck")
    assert code == 2
    assert "--front" in err


def test_scale_and_mix_print_json(tmp_path: Path) -> None:
    code, out, _ = run(
        "scale", str(CHAT), "--nodes", "2", "--layers", "0", "--context", "0", "--json"
    )
    assert code == 0
    assert [row["size"] for row in json.loads(out)["rows"]] == ["as given", "2x nodes"]
    code, _, err = run("scale", str(CHAT), "--nodes", "two")
    assert code == 2
    assert "--nodes" in err
    melange = CHAT.parents[1] / "instances/melange/example.json"
    code, out, _ = run("mix", str(melange), "--json")
    assert code == 0
    assert json.loads(out)["counts"] == {"A10G": 3, "A100-80GB": 1}
