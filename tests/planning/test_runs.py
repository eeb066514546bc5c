"""Tables of runs: what is read, what is skipped and why; refits on them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from shardwright.planning import refit_answer
from shardwright.planning.refit import MIN_RUNS, refit
from shardwright.planning.replay import Predictor
from shardwright.planning.run_names import engine, weight_format
from shardwright.planning.runs import Skipped, Worker, read_row, read_table
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.errors import InvalidInstance

RUN = {
    "source": "own", "date": "2026-05-01", "engine": "vllm", "engine_version": "0.19",
    "gpu": "H100-SXM", "gpu_norm": "", "n_gpus": "4", "model": "Qwen/Qwen3-32B",
    "model_norm": "", "weight_dtype": "fp8", "kv_dtype": "", "tp": "4", "pp": "1",
    "dp": "1", "ep": "", "disagg": "0", "isl": "1024", "osl": "256",
    "concurrency_or_batch": "16", "request_rate": "inf", "ttft_ms_p50": "",
    "tpot_ms_p50": "12", "out_tok_s_total": "", "total_tok_s": "", "note": "",
    "ttft_ms_mean": "200", "tpot_ms_mean": "", "mode": "closed_loop",
    "spec_decode": "0", "dp_attention": "0", "arch": "dense",
}  # fmt: skip


def run(**changes: str) -> dict[str, str]:
    return {**RUN, **changes}


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(("changes", "why"), [
    ({"spec_decode": "1"}, "speculative"),
    ({"note": "AMBIGUOUS twin"}, "AMBIGUOUS"),
    ({"mode": "production"}, "phase_only/production"),
    ({"tp": ""}, "parallel degrees unknown"),
    ({"disagg": "1"}, "disaggregated without worker counts"),
])  # fmt: skip
def test_reasons_to_skip(changes: dict[str, str], why: str) -> None:
    with pytest.raises(Skipped, match=why):
        read_row(run(**changes))


def test_degrees_as_tables_write_them() -> None:
    replicas = read_row(run(n_gpus="8", tp="2", dp="4"))
    assert (replicas.worker, replicas.workers) == (Worker(2), 4)
    group = read_row(run(n_gpus="8", tp="8", dp="8", ep="8", dp_attention="1",
                         arch="moe"))  # fmt: skip
    assert (group.worker, group.workers) == (Worker(1, 1, 8, 8), 1)
    attention = read_row(run(n_gpus="8", tp="1", dp="8", ep="8", arch="moe"))
    assert attention.worker == Worker(1, 1, 8, 8)
    apart = read_row(run(disagg="1", note="disagg prefill 2w x tp4 pp1 adp1 mtp4 mep1 "
                         "bs1; decode 3w x tp1 pp1 adp8 mtp1 mep8 bs4"))  # fmt: skip
    assert (apart.prefill_workers, apart.workers) == (2, 3)
    assert apart.worker == Worker(1, 1, 8, 8, 1)
    assert apart.prefill == Worker(4, 1, 1, 1, 4)


def test_engines_of_two_eras() -> None:
    found = {
        engine(read_row(run(engine=e, date=d, engine_version=v)))
        for e, d, v in (
            ("vLLM", "2024-11", ""), ("vllm", "", "0.6.3"), ("vllm", "", "0.12.0"),
            ("TensorRT-LLM", "2025-02", "0.17"), ("trtllm", "", "1.0.0rc3"),
            ("dynamo-sglang", "", "x"), ("an engine of tomorrow", "2027-01", "9"),
        )
    }  # fmt: skip
    assert found == {"vllm-2024", "vllm", "trtllm-2024", "trtllm", "sglang"}
    assert weight_format(read_row(run(weight_dtype="", model="x/y-AWQ"))) == "int4"


def test_a_mean_length_that_is_missing_is_like_the_other() -> None:
    row = read_row(run(isl=""))
    assert (row.input_tokens, row.output_tokens) == (256, 256)
    assert read_row(run(isl="", mode="single_stream")).input_tokens == 1


@pytest.mark.parametrize(
    ("note", "found"),
    [("500 requests, arrival QPS=2", 500), ("a 300-request burst", 300),
     ("num_prompts=64; warm", 64), ("10 requests per client", None),
     ("at 5 requests/s", None), ("0 requests", None), ("", None)],
)  # fmt: skip
def test_the_number_of_requests_is_read_from_the_note(
    note: str, found: float | None
) -> None:
    assert read_row(run(note=note)).requests == found


def test_an_unheard_of_mode_is_read_by_its_load() -> None:
    def mode(**cells: str) -> str:
        empty = {"concurrency_or_batch": "", "request_rate": ""}
        return read_row(run(**{"mode": "ramp", **empty, **cells})).mode

    assert mode(concurrency_or_batch="8", request_rate="inf") == "closed_loop"
    assert mode(request_rate="10", note="300 requests") == "poisson"
    assert mode(note="300 requests") == "offline_max"
    assert mode() == "closed_loop"


def test_near_duplicates_are_marked_and_scored(tmp_path: Path) -> None:
    rows = [run(), run(tpot_ms_p50="12.004"), run(tpot_ms_p50="13")]
    read = read_table(table(tmp_path / "runs.csv", rows))
    assert [r.repeat for r in read.rows] == [False, True, False]
    assert read.skipped == {}


def loads() -> list[dict[str, str]]:
    return [run(concurrency_or_batch=str(c), tp=str(t), n_gpus=str(t))
            for c in (1, 64) for t in (2, 4)]  # fmt: skip


def measured(path: Path, slower: float) -> Path:
    """Runs as a machine would give them whose fixed costs are ``slower`` times ours."""
    read, _ = Predictor.of(read_table(table(path, loads())))
    gpu = read.deployments[0].gpu
    c = gpu.calibration
    costs: dict[str, Any] = {
        name: e.model_copy(update={"layer_overhead_us": e.layer_overhead_us * slower,
                                   "step_overhead_us": e.step_overhead_us * slower})
        for name, e in c.engines.items()
    }  # fmt: skip
    other = c.model_copy(update={"engines": costs})
    found = read.predict({gpu.name: gpu.model_copy(update={"calibration": other})})
    rows = [
        {**one, "tpot_ms_p50": f"{t:.4f}", "ttft_ms_mean": f"{f:.3f}"}
        for one, t, f in zip(loads(), found["tpot"], found["ttft"], strict=True)
    ]
    return table(path, rows)


def test_a_refit_finds_slower_software(tmp_path: Path) -> None:
    """Twice the fixed costs: found, better on runs left out, written as a GPU type."""
    document = refit_answer.answer(measured(tmp_path / "runs.csv", 2.0), tmp_path)
    found = document["gpus"]["H100-SXM"]
    assert found["kept"]
    assert found["factors"]["fixed costs"] > 1.1
    assert found["error_left_out"]["tpot"] < 0.6 * found["error_before"]["tpot"]
    (written,) = document["written"]
    read = GpuSpec.model_validate_json(Path(written).read_text(encoding="utf-8"))
    assert read.calibration.name == "hopper-refit"
    assert "run left out" in refit_answer.text(document)


def test_a_refit_that_does_not_help_is_refused(tmp_path: Path) -> None:
    rows = [run(tpot_ms_p50=str(t), ttft_ms_mean="", isl=str(i))
            for t, i in ((40, 1000), (3, 1001), (35, 1002), (4, 1003))]  # fmt: skip
    one = refit(table(tmp_path / "noise.csv", rows))[0]
    assert not one.kept and one.factors == {}
    assert one.calibration.engines == refit_catalogue().engines


def refit_catalogue() -> Any:
    from shardwright.ingest import gpu

    return gpu("H100-SXM").calibration


def test_few_runs_and_bad_tables_are_told(tmp_path: Path) -> None:
    few = table(tmp_path / "few.csv", [run()])
    document = refit_answer.answer(few)
    assert f"{MIN_RUNS} or more are needed" in refit_answer.text(document)
    assert document["written"] == []
    with pytest.raises(InvalidInstance, match="engine"):
        refit(table(tmp_path / "bad.csv", [{"a": "1"}]))
    with pytest.raises(InvalidInstance):
        refit(tmp_path / "absent.csv")
    unknown = table(tmp_path / "unknown.csv", [run(gpu="Z9000")])
    with pytest.raises(InvalidInstance, match="GPU unknown"):
        refit(unknown)
