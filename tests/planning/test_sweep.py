"""Sweeps: points, rows, the journal, lost workers, interruption."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.planning.small import CHAT, LIMIT, RATE, chat, figures

import shardwright as sw
from shardwright.planning import sweep_processes
from shardwright.planning.sweep import run_sweep
from shardwright.planning.sweep_points import read_sweep, with_value
from shardwright.planning.sweep_processes import Job, Processes
from shardwright.planning.sweep_text import sweep_text
from shardwright.schema.errors import InvalidInstance


def asked(**update: Any) -> dict[str, Any]:
    return {
        "instance": str(CHAT),
        "vary": {RATE: [8, 32], LIMIT: [10, 40]},
        "time_limit_s": 30,
        **update,
    }


def jobs(source: dict[str, Any]) -> list[Job]:
    points = read_sweep(source).points()
    return [Job(p, p.task) for p in points if p.task is not None]


def test_points_are_the_grid_at_every_entry_of_the_list() -> None:
    source = asked(list=[{"fix.tp": 1}, {"fix.tp": 2}])
    changes = [point.changes for point in read_sweep(source).points()]
    assert len(changes) == 8
    assert changes[0] == {"fix.tp": 1, RATE: 8, LIMIT: 10}
    assert changes[1] == {"fix.tp": 1, RATE: 8, LIMIT: 40}
    assert changes[7] == {"fix.tp": 2, RATE: 32, LIMIT: 40}


def test_a_field_is_set_by_its_path_and_the_document_stays() -> None:
    raw = {"a": {"b": [{"c": 1}, {"c": 2}]}}
    assert with_value(raw, "a.b.1.c", 3) == {"a": {"b": [{"c": 1}, {"c": 3}]}}
    assert with_value(raw, "d.e", 4)["d"] == {"e": 4}
    assert with_value(raw, "a", None) == {}
    assert raw == {"a": {"b": [{"c": 1}, {"c": 2}]}}


@pytest.mark.parametrize(
    ("path", "at"),
    [("a.b.2.c", "a.b.2"), ("a.b.x", "a.b.x"), ("a.b.0.c.d", "a.b.0.c")],
)
def test_a_path_that_leads_nowhere_is_refused_where_it_ends(path: str, at: str) -> None:
    with pytest.raises(InvalidInstance) as refused:
        with_value({"a": {"b": [{"c": 1}, {"c": 2}]}}, path, 0)
    assert refused.value.errors[0].path == at


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"instance": None}, "instance"),
        ({"vary": {RATE: []}}, f"vary.{RATE}"),
        ({"vari": {}}, "vari"),
        ({"list": [{RATE: 3}]}, "(document)"),
        ({"vary": {f"x{i}": [*range(100)] for i in range(3)}}, "(document)"),
    ],
)
def test_a_sweep_is_read_strictly(update: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInstance) as refused:
        read_sweep(asked(**update))
    assert refused.value.errors[0].path == field


def test_rows_are_what_solve_says_and_a_second_run_solves_nothing(
    tmp_path: Path,
) -> None:
    source = asked(list=[{}, {"workload.max_batch": 0}, {"fix.tp": 3}])
    run = run_sweep(source, folder=tmp_path, workers=2)
    assert [row["point"] for row in run.rows] == [*range(12)]
    assert run.counts == {"INFEASIBLE": 4, "INVALID": 4, "OPTIMAL": 4}
    for row in run.rows[:4]:
        workload = chat().workload.model_copy(update={"request_rate_per_s": row[RATE]})
        first = chat().slo[0].model_copy(update={"limit_ms": row[LIMIT]})
        slo = (first, *chat().slo[1:])
        alone = sw.solve(chat(workload=workload, slo=slo), workers=1)
        assert alone.plan is not None
        assert row["instance_sha256"] == alone.result.instance_sha256
        assert row["gpus_value"] == row["gpus_bound"] == row["gpus"]
        assert row["throughput_tokens_per_s_value"] == alone.result.objectives[1].value
        assert row["tpot_ms"] == alone.plan.metrics["total"]["tpot_ms"] <= row[LIMIT]
    assert {row["field"] for row in run.rows[4:8]} == {"workload.max_batch"}

    again = run_sweep(source, folder=tmp_path, workers=2)
    assert (again.solved, again.kept) == (0, 8)
    assert again.rows == run.rows
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        table = [*csv.DictReader(file)]
    assert [cell["status"] for cell in table] == [row["status"] for row in run.rows]
    assert table[0][RATE] == "8"
    lines = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [*run.rows]
    text = sweep_text(again)
    assert "8 of them were in the journal" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_half_written_line_is_solved_again_and_a_broken_one_refused(
    tmp_path: Path,
) -> None:
    source = asked(vary={RATE: [8, 32]})
    first = run_sweep(source, folder=tmp_path, workers=1)
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-40])
    again = run_sweep(source, folder=tmp_path, workers=1)
    assert (again.solved, again.kept) == (1, 1)
    assert [*map(figures, again.rows)] == [*map(figures, first.rows)]
    assert len(journal.read_bytes().splitlines()) == 2
    journal.write_bytes(b"{}\n" + whole)
    with pytest.raises(InvalidInstance, match="line 1"):
        run_sweep(source, folder=tmp_path)


def test_other_limits_of_time_are_other_points(tmp_path: Path) -> None:
    keys = {job.task.key for t in (10, 20) for job in jobs(asked(time_limit_s=t))}
    assert len(keys) == 8
    listed = jobs(asked(vary={}, list=[{"time_limit_s": 5}, {}]))
    assert [job.task.time_limit_s for job in listed] == [5, 30]
    assert listed[0].task.sha256 == listed[1].task.sha256


def test_equal_points_are_solved_once(tmp_path: Path) -> None:
    run = run_sweep(asked(vary={RATE: [8, 8.0, 8]}), workers=1)
    assert run.solved == 1
    assert len(run.rows) == 3
    assert len({json.dumps(figures(row["status"] and {**row, "point": 0, RATE: 8}))
                for row in run.rows}) == 1  # fmt: skip


def test_a_killed_worker_costs_its_point_nothing() -> None:
    pool = Processes(1, lambda: False)
    solved: dict[int, tuple[str, int]] = {}
    for point, outcome, attempts in pool.solved(jobs(asked())):
        if not solved:
            for pid in pool.pids:
                os.kill(pid, signal.SIGKILL)
        solved[point.index] = (outcome["status"], attempts)
    assert sorted(solved) == [0, 1, 2, 3]
    assert {status for status, _ in solved.values()} == {"OPTIMAL"}
    assert max(attempts for _, attempts in solved.values()) == 2


def test_what_ends_its_process_three_times_is_an_error_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = asked(vary={RATE: [8]})
    with monkeypatch.context() as patched:
        patched.setattr(sweep_processes, "_WORKER", "shardwright.no_such_module")
        (row,) = run_sweep(source, folder=tmp_path, workers=1).rows
    assert row["status"] == "ERROR"
    assert row["attempts"] == 3
    assert "lost 3 times, last by exit status 1" in row["reason"]
    (row,) = run_sweep(source, folder=tmp_path, workers=1).rows
    assert row["status"] == "OPTIMAL"


def test_a_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    run = run_sweep(
        asked(),
        folder=tmp_path,
        workers=1,
        stop=lambda: len(seen) >= 1,
        on_row=lambda row, total: seen.append(row),
    )
    assert not run.complete
    assert [*run.rows] == seen
    rest = run_sweep(asked(), folder=tmp_path, workers=1)
    assert rest.complete
    assert (rest.solved, rest.kept) == (4 - len(seen), len(seen))


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    from shardwright.planning.sweep_journal import Journal

    with Journal(tmp_path), pytest.raises(InvalidInstance, match="another sweep"):
        run_sweep(asked(), folder=tmp_path)


def test_a_sweep_of_an_instance_in_memory() -> None:
    rows = sw.sweep(
        {"vary": {"precision.weights": ["bf16"]}}, instance=chat(), workers=1
    )
    assert rows[0]["status"] == "OPTIMAL"
    assert rows[0]["instance_sha256"] == sw.solve(chat()).result.instance_sha256


def test_ray_gives_the_same_rows() -> None:
    pytest.importorskip("ray")
    source = asked(vary={RATE: [8, 32], "fix.tp": [1, 3]})
    here = run_sweep(source, workers=1)
    there = run_sweep(source, workers=1, ray="local")
    assert [*map(figures, there.rows)] == [*map(figures, here.rows)]
