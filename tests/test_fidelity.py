"""The benchmarks of predictions and choices run on any table and never crash."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.choice.__main__ import main as choice
from benchmarks.choice.cases import Case, Option
from benchmarks.choice.rules import ranked
from benchmarks.fidelity import constants, names
from benchmarks.fidelity.__main__ import SHIPPED
from benchmarks.fidelity.__main__ import main as fidelity

from shardwright.cost.intervals import interval, latency_margin
from shardwright.ingest import catalogue
from shardwright.planning.runs import Skipped


def last_line(text: str) -> dict[str, Any]:
    found = json.loads(text.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_shipped_table_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    """Bounds are far above today's figures: they catch a broken law, not drift."""
    assert fidelity(["--json"]) == 0
    document = last_line(capsys.readouterr().out)
    score = document["score"]
    assert isinstance(score, dict)
    assert score["tpot"]["median_ape"] < 0.2
    assert abs(score["tpot"]["bias"]) < 0.1
    assert score["ttft"]["median_ape"] < 0.5
    assert score["throughput"]["median_ape"] < 0.2
    assert document["rows_used"] > 1000


def test_choices_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert choice(["--json"]) == 0
    document = last_line(capsys.readouterr().out)
    assert document["cases"] > 50
    baselines = document["baselines"]
    assert isinstance(baselines, dict)
    trivial = [baselines[n]["value"] for n in ("max TP", "min TP that fits", "random")]
    assert document["value"] > max(trivial)


def test_wide_tables_fit_a_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fidelity([str(written(tmp_path / "table.csv", rows_of(SHIPPED)[::9]))])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120  # names of groups are long
    assert any("rows scored" in line for line in lines[-3:])


GARBAGE = ("", "0", "-1", "nan", "inf", "1e99", "x", "1.5", "4", "8", "é;", "True")


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_tables_never_crash(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """60 rows with a third of their cells replaced; some columns are missing."""
    chance = random.Random(seed)
    with SHIPPED.open(newline="", encoding="utf-8") as file:
        rows = chance.sample(list(csv.DictReader(file)), 60)
    dropped = chance.sample(list(rows[0]), 3)
    for row in rows:
        for column in list(row):
            if column in dropped:
                del row[column]
            elif chance.random() < 0.3:
                row[column] = chance.choice(GARBAGE)
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert fidelity([str(path), "--json"]) == 0
    document = last_line(capsys.readouterr().out)
    skipped = document["rows_skipped"]
    assert isinstance(skipped, dict)
    assert document["rows_used"] + sum(skipped.values()) == 60
    assert choice([str(path), "--json"]) == 0


REASONS = {
    "speculative", "AMBIGUOUS", "parallel degrees unknown", "phase_only/production",
    "disaggregated without worker counts", "GPU unknown to the catalogue",
    "model dimensions unknown to the catalogue",
}  # fmt: skip
OPTIONAL = (
    "url_or_repo_path", "date", "engine_version", "weight_dtype", "kv_dtype", "pp",
    "dp", "ep", "isl", "osl", "concurrency_or_batch", "request_rate", "ttft_ms_p50",
    "ttft_ms_mean", "tpot_ms_p50", "tpot_ms_mean", "out_tok_s_total", "total_tok_s",
    "note", "spec_decode", "dp_attention", "arch", "gpu_norm", "model_norm",
)  # fmt: skip
UNSEEN = {
    "source": ("Acme lab", "日本", "inferencex-next", "a|b", ""),
    "engine": ("tgi", "vllm-fork", "SGLang nightly", "TensorRT-LLM", "max"),
    "engine_version": ("9.9.9", "main@1a2b3c", "v0.1", "1.0.0rc12.post3", "latest"),
    "mode": ("ramp", "Closed Loop", "", "poisson", "offline_max", "single_stream"),
    "concurrency_or_batch": ("1e12", "0.5", "100000", "7"),
    "request_rate": ("inf", "1e-9", "1e12", "3"),
    "isl": ("1e12", "131072", "333.3", "1"),
    "osl": ("1e12", "65536", "1", "77.7"),
    "note": ("500 requests", "9999999999 prompts", "0 requests", "x" * 3000),
}


@pytest.mark.parametrize("seed", range(6))
def test_unseen_tables_are_scored(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unseen sources, releases and modes, blanks, columns more: scored or counted."""
    chance = random.Random(seed)
    rows = chance.sample(rows_of(SHIPPED), 50)
    for row in rows:
        for column, values in UNSEEN.items():
            if chance.random() < 0.25:
                row[column] = chance.choice(values)
        for column in [c for c in OPTIONAL if c in row]:
            if chance.random() < 0.15:
                row[column] = ""
        if chance.random() < 0.1:
            where = chance.choice(("gpu", "model"))
            row[where] = row[f"{where}_norm"] = "Unheard-1"
        row["a column more"] = "1"
    path = written(tmp_path / "table.csv", rows)
    assert fidelity([str(path), "--json"]) == 0
    document = last_line(capsys.readouterr().out)
    skipped = document["rows_skipped"]
    assert set(skipped) <= REASONS
    assert document["rows_used"] + sum(skipped.values()) == 50
    assert not any("Unheard" in name for name in document["groups"])
    for metric in ("tpot", "ttft", "throughput"):
        assert {"median_ape", "bias"} <= set(document["score"][metric])
    assert choice([str(path), "--json", "--any-release"]) == 0
    found = last_line(capsys.readouterr().out)
    assert {"value", "violations", "worst", "cases", "baselines"} <= set(found)


def test_only_what_cannot_be_predicted_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the same rows under another source's name: used, but judged once."""
    rows = [r for r in rows_of(SHIPPED) if r["mode"] == "static_batch"][:40]
    again = [{**r, "source": "Acme lab"} for r in rows]
    path = written(tmp_path / "table.csv", rows + again)
    assert fidelity([str(path), "--json"]) == 0
    document = last_line(capsys.readouterr().out)
    assert document["rows_used"] == 80 and not document["rows_skipped"]
    groups = document["groups"]
    assert 0 < sum(g["throughput"]["n"] for g in groups.values()) <= 40
    assert not [name for name in groups if name.startswith("Acme")]


@pytest.mark.parametrize("limit", [None, 20.0, 5.0])
def test_of_equal_predictions_the_later_release_is_chosen(limit: float | None) -> None:
    options = tuple(
        Option(row, (8, 1), 8, 8, 100.0 * (row + 1), 10.0, date)
        for row, date in enumerate(("2025-11-02", "2026-03-25", "2026-01-10", ""))
    )
    same = np.full(4, 12.0)
    assert ranked(Case("c", options, limit), same, same, 0.09).date == "2026-03-25"


def test_a_table_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (fidelity, choice):
        assert command([str(tmp_path / "none.csv"), "--json"]) == 2
        assert "none.csv" in capsys.readouterr().err


def test_empty_tables_are_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("source,mode\n", encoding="utf-8")
    assert fidelity([str(path), "--json"]) == 0
    assert last_line(capsys.readouterr().out)["rows_used"] == 0
    assert choice([str(path), "--json"]) == 0
    assert last_line(capsys.readouterr().out)["cases"] == 0


@pytest.mark.parametrize("name", catalogue.names("gpu"))
def test_every_gpu_of_the_catalogue_has_a_name_in_tables(name: str) -> None:
    assert names.gpu(name).name == name


def test_names_of_models() -> None:
    def known(text: str) -> str:
        return names.model(text, "").name

    assert known("meta-llama/Llama-3.3-70B-Instruct").endswith("3.1-70B")
    assert known("deepseek-ai/DeepSeek-R1-0528") == "deepseek-ai/DeepSeek-V3"
    assert known("Qwen/Qwen3.5-397B-A17B").startswith("Qwen/Qwen3.5-397B")
    with pytest.raises(Skipped, match="dimensions unknown"):
        names.model("acme/Unheard-1T", "")


def test_fitted_constants_are_few_and_bounded() -> None:
    assert constants.COUNT <= 60
    low, high = constants.theta_bounds()
    assert (low <= 0).all() and (high >= 0).all()
    values = constants.physical(low * 3)
    assert all(values[c.name] >= c.low for c in constants.CONSTANTS)
    assert all(c.unit and c.meaning for c in constants.CONSTANTS)


def test_intervals_hold_the_prediction() -> None:
    found = interval("closed_loop", "tpot")
    assert found is not None
    assert found.low <= 1 <= found.high
    low, high = found.of(20.0)
    assert low <= 20 <= high
    wide = interval("closed_loop", "tpot", "low")
    assert wide is not None and wide.low <= found.low and wide.high >= found.high
    assert 0 < latency_margin() < 0.5
