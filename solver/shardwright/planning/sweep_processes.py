"""Points solved in parallel processes; one that is killed costs its point nothing."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from shardwright.planning.sweep_points import Point, Task
from shardwright.planning.sweep_rows import failed_row
from shardwright.planning.sweep_worker import encoded
from shardwright.schema.sweep import Row

MAX_RETRIES = 2
_POLL_S = 0.2
_WORKER = "shardwright.planning.sweep_worker"

Solved = tuple[Point, Row, int]
"""A point, its outcome, and how often it was tried."""


@dataclass
class Job:
    """A point on its way."""

    point: Point
    task: Task
    attempts: int = 0


@dataclass(eq=False)
class _Worker:
    """A process, the job it works on, and what it has sent of the answer."""

    process: subprocess.Popen[bytes]
    job: Job | None = None
    received: bytearray = field(default_factory=bytearray)
    deadline: float = 0.0

    @property
    def answers(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def give(self, job: Job) -> bool:
        """Hand out a job; False when the process is gone."""
        assert self.process.stdin is not None
        self.job, job.attempts = job, job.attempts + 1
        self.deadline = monotonic() + longest_s(job.task)
        try:
            self.process.stdin.write(encoded(job.task))
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def end(self) -> int:
        """End the process; its exit status."""
        with suppress(ProcessLookupError):
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        return self.process.wait()


def longest_s(task: Task) -> float:
    """Seconds after which a point that does not answer is given up."""
    return 3 * task.time_limit_s + 60


class Processes:
    """A pool of worker processes; ``pids`` are the live ones."""

    def __init__(self, workers: int, stop: Callable[[], bool]) -> None:
        self.workers = workers
        self.stop = stop
        self._pool: list[_Worker] = []
        self._again: deque[Job] = deque()
        self._selector = selectors.DefaultSelector()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._pool]

    def solved(self, jobs: Iterable[Job]) -> Iterator[Solved]:
        """Outcomes as they come, until all are there or ``stop`` says so."""
        waiting = iter(jobs)
        try:
            while not self.stop():
                self._hand_out(waiting)
                if not any(worker.job for worker in self._pool):
                    return
                yield from self._collect()
        finally:
            for worker in [*self._pool]:
                self._dismiss(worker)
            self._selector.close()

    def _hand_out(self, waiting: Iterator[Job]) -> None:
        """Every free worker gets a job; workers are started as jobs ask for them."""
        while len(self._busy()) < self.workers:
            job = self._again.popleft() if self._again else next(waiting, None)
            if job is None:
                return
            free = [w for w in self._pool if w.job is None]
            worker = free[0] if free else self._start()
            if not worker.give(job):
                # it died while idle: that is not the job's doing
                job.attempts -= 1
                self._again.append(job)
                self._dismiss(worker)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._pool if worker.job is not None]

    def _start(self) -> _Worker:
        # a group of its own: a terminal's Ctrl-C is the parent's to handle
        process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _paths()},
            process_group=0,
        )
        worker = _Worker(process)
        self._pool.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _dismiss(self, worker: _Worker) -> int:
        self._pool.remove(worker)
        self._selector.unregister(worker.answers)
        return worker.end()

    def _collect(self) -> Iterator[Solved]:
        """Answers and losses of the next moment."""
        for key, _ in self._selector.select(_POLL_S):
            worker: _Worker = key.data
            data = os.read(worker.answers, 2**20)
            worker.received += data
            if not data:
                yield from self._lost(worker)
            elif data.endswith(b"\n") and worker.job is not None:
                job, worker.job = worker.job, None
                outcome = json.loads(bytes(worker.received))
                worker.received.clear()
                yield job.point, outcome, job.attempts
        late = [w for w in self._busy() if monotonic() > w.deadline]
        for worker in late:
            hung = worker.job
            self._dismiss(worker)
            if hung is not None:
                reason = f"no answer within {longest_s(hung.task):.0f} s"
                yield hung.point, failed_row(reason), hung.attempts

    def _lost(self, worker: _Worker) -> Iterator[Solved]:
        """A process is gone: its job is tried again, or is what ends processes."""
        job, worker.job = worker.job, None
        code = self._dismiss(worker)
        if job is None:
            return
        if job.attempts <= MAX_RETRIES:
            self._again.append(job)
            return
        end = f"signal {-code}" if code < 0 else f"exit status {code}"
        reason = f"its process was lost {job.attempts} times, last by {end}"
        yield job.point, failed_row(reason), job.attempts


# the processes are the parallelism; numpy's own threads would only contend
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _paths() -> str:
    """Where the workers find the packages: where this process does."""
    paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100
    return os.pathsep.join(paths)
