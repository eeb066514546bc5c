"""Sweeps in parallel processes: speed-up, lost workers, interruption.

    python -m benchmarks.sweep [--count 500] [--repeat 1] [--out FILE]

Solves the same points with one worker and with two, and measures what two independent
CPU-bound processes reach on this machine before and after. Then a worker is killed, and
a sweep is interrupted and run again. Exits with 5 when two workers reach less than 0.9
of the two processes' speed-up, or when a row is lost, differs, or is solved twice.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from time import monotonic, sleep
from typing import Any

from benchmarks.machine import machine
from shardwright.planning.sweep import SweepRun, run_sweep

INSTANCE = Path(__file__).parents[2] / "examples" / "chat-8b.yaml"
ASKED = 0.9
_BURN = (
    "import sys\n"
    "x = 1\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    x = x * 1103515245 + 12345 & 0xffffffff\n"
)
_UNIT = 30_000_000
_TIMINGS = ("seconds", "attempts")


def points(count: int) -> dict[str, Any]:
    """The sweep: rates against latency targets, ``count`` points in all."""
    limits = [12.0, 16.0, 20.0, 30.0, 40.0]
    listed = [
        {
            "workload.request_rate_per_s": 2.0 + 0.25 * (k // len(limits)),
            "slo.0.limit_ms": limits[k % len(limits)],
        }
        for k in range(count)
    ]
    return {
        "name": "speed",
        "instance": str(INSTANCE),
        "list": listed,
        "time_limit_s": 60,
    }


def processes_speed_up() -> float:
    """Two CPU-bound processes side by side against the same work one by one."""

    def burn(side_by_side: bool) -> float:
        begun = monotonic()
        started = []
        for _ in range(2):
            one = subprocess.Popen([sys.executable, "-c", _BURN, str(_UNIT)])
            started.append(one)
            if not side_by_side:
                one.wait()
        for one in started:
            one.wait()
        return monotonic() - begun

    return burn(False) / burn(True)


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what is measured."""
    return [{k: v for k, v in row.items() if k not in _TIMINGS} for row in rows]


def cpu_s() -> float:
    """CPU seconds of this process and of those that it waited for."""
    own, theirs = (
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime


def speed(count: int, repeat: int) -> dict[str, Any]:
    """Wall times with one and with two workers, and the machine's own speed-up."""
    machines, ratios = [processes_speed_up()], []
    times, work = [], []
    same = True
    for _ in range(repeat):
        wall: dict[int, float] = {}
        cpu: dict[int, float] = {}
        runs: dict[int, SweepRun] = {}
        for workers in (1, 2):
            begun, used = monotonic(), cpu_s()
            runs[workers] = run_sweep(points(count), workers=workers)
            wall[workers] = monotonic() - begun
            cpu[workers] = cpu_s() - used
        same &= compared(runs[1].rows) == compared(runs[2].rows)
        same &= len(runs[2].rows) == count
        times.append({str(workers): round(s, 2) for workers, s in wall.items()})
        work.append({str(workers): round(s, 2) for workers, s in cpu.items()})
        ratios.append(wall[1] / wall[2])
        machines.append(processes_speed_up())
    share = median(ratios) / mean(machines)
    return {
        "count": count,
        "statuses": runs[2].counts,
        "wall_s": times,
        "cpu_s": work,
        "speed_up": round(median(ratios), 3),
        "speed_up_of_two_processes": [round(m, 3) for m in machines],
        "share_of_machine": round(share, 3),
        "rows_equal": same,
        "ok": same and share >= ASKED,
    }


def command(file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The command line on the sweep of a file."""
    asked = [sys.executable, "-m", "shardwright.cli", "sweep", str(file), "--json"]
    return subprocess.Popen(
        [*asked, "--out", str(folder), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def finished(folder: Path) -> list[str]:
    """Keys of the journal, in order."""
    path = folder / "journal.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [
        json.loads(x)["key"] for x in text.splitlines(keepends=True) if x[-1] == "\n"
    ]


def once(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, or the process is over."""
    while process.poll() is None and not condition():
        sleep(0.02)


def children(pid: int) -> list[int]:
    """Process numbers of a process's children (Linux)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def results(folder: Path) -> list[dict[str, Any]]:
    """Rows of results.jsonl."""
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def killed(count: int, folder: Path) -> dict[str, Any]:
    """One worker is killed at a quarter, another one at half of the points."""
    file = folder / "sweep.json"
    file.write_text(json.dumps(points(count)), encoding="utf-8")
    process = command(file, folder / "killed")
    kills = 0
    for share in (4, 2):
        once(process, lambda s=share: len(finished(folder / "killed")) >= count // s)  # type: ignore[misc]
        workers = children(process.pid) if process.poll() is None else []
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)
            kills += 1
    code = process.wait()
    rows = results(folder / "killed")
    again = [row["point"] for row in rows if row["attempts"] > 1]
    wrong = sum(row["status"] == "ERROR" for row in rows)
    return {
        "count": count,
        "killed": kills,
        "exit": code,
        "rows": len(rows),
        "tried_again": len(again),
        "errors": wrong,
        "ok": kills == 2 and code == 0 and len(rows) == count and not wrong,
    }


def interrupted(count: int, folder: Path) -> dict[str, Any]:
    """Ctrl-C at a third of the points, then the same command again."""
    file = folder / "sweep.json"
    file.write_text(json.dumps(points(count)), encoding="utf-8")
    place = folder / "interrupted"
    process = command(file, place)
    once(process, lambda: len(finished(place)) >= count // 3)
    process.send_signal(signal.SIGINT)
    first = process.wait()
    kept = finished(place)
    second = command(file, place).wait()
    keys = finished(place)
    return {
        "count": count,
        "exit": first,
        "kept": len(kept),
        "exit_again": second,
        "solved_again": len(keys) - len({*keys}),
        "rows": len(results(place)),
        "ok": first == 130
        and second == 0
        and 0 < len(kept) < count
        and keys[: len(kept)] == kept
        and len(keys) == len({*keys})
        and len(results(place)) == count,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    asked = parser.parse_args(arguments)
    few = max(12, asked.count // 5)
    document: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        document["speed"] = speed(asked.count, asked.repeat)
        document["killed"] = killed(few, Path(folder))
        document["interrupted"] = interrupted(few, Path(folder))
    document["ok"] = all(
        document[name]["ok"] for name in ("speed", "killed", "interrupted")
    )
    text = json.dumps(document, indent=2)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")
    return 0 if document["ok"] else 5


if __name__ == "__main__":
    sys.exit(main())
