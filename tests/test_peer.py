"""The comparison with the peer: its cases, its plans in our words, its law."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.peer.cases import Case, cases
from benchmarks.peer.laws import _degrees, _fix_of
from benchmarks.peer.measured import rows

from shardwright.cost.aiconfigurator import installed


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_peers_plan_can_be_said_with_fix(case: Case) -> None:
    asked = case.instance(case.fix)
    assert asked.engine.latencies == "silicon"
    assert {t.metric: t.limit_ms for t in asked.slo} == {"ttft": 500, "tpot": 50}
    worker = case.worker
    assert asked.fix.tp == worker.tp
    assert asked.fix.sequences == worker.batch * worker.attn_dp
    assert (asked.fix.dp or 0) * worker.gpus == case.gpus
    assert case.instance(_fix_of(worker, case.gpus)).fix.dp == asked.fix.dp


def test_degrees_leave_the_operating_point_free() -> None:
    [case] = [c for c in cases() if "vllm" in c.name]
    assert _degrees(case.fix) == "tp=4,pp=1,dp=2"


def test_the_measured_rows_are_read() -> None:
    found = list(rows())
    assert len(found) == 689
    assert {row.engine for row in found} == {"trtllm", "vllm", "sglang"}
    assert all(row.measured_ms > 0 and row.peer_ms > 0 for row in found)


@pytest.mark.skipif(installed(), reason="the extra silicon is there")
def test_without_the_extra_the_stored_results_are_shown(tmp_path: Path) -> None:
    (tmp_path / "peer.md").write_text("stored page")
    command = [sys.executable, "-m", "benchmarks.peer", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "shardwright[silicon]" in done.stdout
    assert "stored page" in done.stdout


@pytest.mark.skipif(not installed(), reason="extra silicon is missing")
def test_the_peers_law_gives_its_answer_again() -> None:
    from benchmarks.peer.law import PeerLaw

    [case] = [c for c in cases() if "vllm" in c.name]
    again = PeerLaw(case.instance(), case.formats).answer(case.worker)
    assert again is not None
    for name in ("tokens_per_s_per_gpu", "ttft_ms", "tpot_ms"):
        assert getattr(again, name) == pytest.approx(
            getattr(case.answer, name), rel=1e-3
        )
