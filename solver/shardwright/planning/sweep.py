"""Sweeps: many instances that differ in a few fields, solved in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardwright.planning.sweep_journal import Journal
from shardwright.planning.sweep_points import Point, Source, Task, read_sweep
from shardwright.planning.sweep_processes import Job, Processes, Solved
from shardwright.planning.sweep_ray import on_ray
from shardwright.planning.sweep_rows import refused_row, row_of, write_results
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.sweep import Row, SweepFile

MAX_WORKERS = 256
OnRow = Callable[[Row, int], None]
"""Hears of every row as it comes, and how many points there are."""


@dataclass(frozen=True)
class SweepRun:
    """What a sweep came to; without all rows when it was stopped.

    ``solved`` counts the points that were worked on now, ``kept`` those whose
    outcome was in the journal.
    """

    file: SweepFile
    rows: tuple[Row, ...]
    solved: int
    kept: int

    @property
    def complete(self) -> bool:
        """Whether every point has its row."""
        return len(self.rows) == self.file.count()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status."""
        return dict(sorted(Counter(row["status"] for row in self.rows).items()))

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.file.name,
            "points": self.file.count(),
            "complete": self.complete,
            "solved_now": self.solved,
            "kept": self.kept,
            "counts": self.counts,
            "fields": self.file.fields(),
            "rows": [*self.rows],
        }


def sweep(
    source: str | Path | Mapping[str, Any] | SweepFile,
    *,
    instance: Instance | None = None,
    folder: str | Path | None = None,
    workers: int = 2,
    ray: str | None = None,
    stop: Callable[[], bool] | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """Solve every point of a sweep; rows in the order of the points.

    As ``run_sweep``, whose rows these are; points that a ``stop`` left out have none.
    """
    run = run_sweep(
        source,
        instance=instance,
        folder=folder,
        workers=workers,
        ray=ray,
        stop=stop,
        on_row=on_row,
    )
    return [*run.rows]


def run_sweep(
    source: str | Path | Mapping[str, Any] | SweepFile,
    *,
    instance: Instance | None = None,
    folder: str | Path | None = None,
    workers: int = 2,
    ray: str | None = None,
    stop: Callable[[], bool] | None = None,
    on_row: OnRow | None = None,
) -> SweepRun:
    """Solve every point of a sweep in ``workers`` processes, or on a Ray cluster.

    ``source`` is a sweep's file, or the mapping that such a file would have;
    ``instance`` stands for the one that it would name. With a ``folder``, finished
    points are kept in its journal and not solved again, and results.csv and
    results.jsonl are written there. ``ray`` is the address of a cluster, or ``local``.

    Raises InvalidInstance for the sweep itself; a point that is refused, or that ends
    its process three times, is a row. KeyboardInterrupt leaves the journal whole.
    """
    if not 1 <= workers <= MAX_WORKERS:
        field_error = FieldError("workers", str(workers), f"from 1 to {MAX_WORKERS}")
        raise InvalidInstance("sweep", [field_error])
    asked = read_sweep(source, instance)
    halt = stop or (lambda: False)

    def solve(jobs: Iterable[Job]) -> Iterator[Solved]:
        if ray is not None:
            return on_ray(jobs, ray, workers, halt)
        return Processes(workers, halt).solved(jobs)

    place = None if folder is None else Path(folder)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(place)) if place is not None else None
        work = _Work(asked, journal, on_row or (lambda row, count: None))
        try:
            run = work.run(solve)
        finally:
            if place is not None:
                write_results(place, asked.file.fields(), work.ordered())
    return run


@dataclass(eq=False)
class _Work:
    """Rows so far, and who waits for the outcome of the same task."""

    source: Source
    journal: Journal | None
    on_row: OnRow
    rows: dict[int, Row] = field(default_factory=dict)
    done: dict[str, Row] = field(default_factory=dict)
    twins: dict[str, list[Point]] = field(default_factory=dict)
    solved: int = 0
    kept: int = 0

    def ordered(self) -> list[Row]:
        return [self.rows[index] for index in sorted(self.rows)]

    def run(self, solve: Callable[[Iterable[Job]], Iterator[Solved]]) -> SweepRun:
        for point, outcome, attempts in solve(self._jobs()):
            assert point.task is not None
            self.solved += 1
            known = {**outcome, "attempts": attempts}
            known.setdefault("instance_sha256", point.task.sha256)
            if self.journal is not None:
                self.journal.add(point.task.key, known)
            self.done[point.task.key] = known
            for twin in self.twins.pop(point.task.key, []):
                self._add(twin, known)
        rows = tuple(self.ordered())
        return SweepRun(self.source.file, rows, self.solved, self.kept)

    def _jobs(self) -> Iterator[Job]:
        """Points to solve, one per distinct task; the others need no work."""
        for point in self.source.points():
            if point.task is None:
                assert point.refused is not None
                self._add(point, refused_row(point.refused))
                continue
            known = self._finished(point.task)
            if known is not None:
                self.kept += 1
                self._add(point, known)
            elif point.task.key in self.twins:
                self.twins[point.task.key].append(point)
            elif point.task.key in self.done:
                self._add(point, self.done[point.task.key])
            else:
                self.twins[point.task.key] = [point]
                yield Job(point, point.task)

    def _finished(self, task: Task) -> Row | None:
        return self.journal.finished(task.key) if self.journal is not None else None

    def _add(self, point: Point, outcome: Row) -> None:
        row = row_of(point, outcome)
        self.rows[point.index] = row
        self.on_row(row, self.source.file.count())
