"""Points solved on a Ray cluster (the ``ray`` extra), or on one started here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from shardwright.planning.sweep_points import Task
from shardwright.planning.sweep_processes import MAX_RETRIES, Job, Solved
from shardwright.planning.sweep_rows import failed_row, solved_row
from shardwright.schema.errors import FieldError, InvalidInstance, SolverUnavailable
from shardwright.schema.sweep import Row

LOCAL = "local"
_POLL_S = 0.2
_WAITING_PER_CPU = 2


def on_ray(
    jobs: Iterable[Job], address: str, workers: int, stop: Callable[[], bool]
) -> Iterator[Solved]:
    """Outcomes as they come; a cluster that was started here is ended.

    ``address`` is that of a running cluster, ``auto``, or ``local``, which starts one
    with ``workers`` processors. Raises SolverUnavailable without the library,
    InvalidInstance where nothing answers at the address.
    """
    ray = _library()
    started = not ray.is_initialized()
    if started:
        _connect(ray, address, workers)
    try:
        yield from _solved(ray, iter(jobs), stop)
    finally:
        if started:
            ray.shutdown()


def _library() -> Any:
    try:
        import ray
    except ImportError as missing:
        raise SolverUnavailable(
            "a sweep on Ray needs the extra: pip install 'shardwright[ray]'"
        ) from missing
    return ray


def _connect(ray: Any, address: str, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    paths = os.pathsep.join(os.path.abspath(p) for p in sys.path if p)  # noqa: PTH100
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        options |= {"num_cpus": workers, "include_dashboard": False}
        # a cluster elsewhere has its own installation
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": paths}}
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        allowed = "the address of a Ray cluster, auto, or local"
        field = FieldError("--ray", f"{address!r} ({error})", allowed)
        raise InvalidInstance("command line", [field]) from error


def _outcome(fields: dict[str, Any]) -> Row:
    return solved_row(Task(**fields))


def _solved(
    ray: Any, jobs: Iterator[Job], stop: Callable[[], bool]
) -> Iterator[Solved]:
    """Few jobs wait in the cluster at a time, so that a stop leaves little behind."""
    most = _WAITING_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Job] = {}
    # one export for all points: threads are those of the sweep
    remote: Any = None
    while not stop():
        while len(running) < most and (job := next(jobs, None)) is not None:
            if remote is None:
                options = {"num_cpus": job.task.threads, "max_retries": MAX_RETRIES}
                remote = ray.remote(**options)(_outcome)
            running[remote.remote(asdict(job.task))] = job
        if not running:
            return
        ready, _ = ray.wait([*running], timeout=_POLL_S)
        for reference in ready:
            job = running.pop(reference)
            job.attempts = 1
            yield job.point, _fetched(ray, reference), job.attempts
    for reference in running:
        ray.cancel(reference, force=True)


def _fetched(ray: Any, reference: Any) -> Row:
    try:
        row: Row = ray.get(reference)
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        return failed_row(f"its process was lost {MAX_RETRIES + 1} times: {first}")
    return row
