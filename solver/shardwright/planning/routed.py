"""Routed pipelines from document to checked result."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from fractions import Fraction
from importlib.metadata import version

from shardwright._version import __version__
from shardwright.check.routed import check_routed
from shardwright.ingest.routed import routed_sha256
from shardwright.problem.routed import RoutedProblem, compile_routed
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.result import Status
from shardwright.schema.routed import (
    UTOK,
    DepthShare,
    FrontPoint,
    Route,
    RoutedInstance,
    RoutedResult,
)
from shardwright.search.base import Improvement, SearchLimits
from shardwright.search.routed import Point, RoutedOutcome, RoutedSearch
from shardwright.search.routed_flow import RoutedFlow
from shardwright.search.routed_local import Found
from shardwright.search.routed_routes import Caps

_LIBRARIES = ("ortools", "numpy")


def solve_routed(
    instance: RoutedInstance,
    *,
    max_stages: int | None = None,
    max_latency_ms: float | None = None,
    time_limit_s: float = 60.0,
    gap: Fraction | float | str = 0,
    workers: int = 2,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[Improvement], None] | None = None,
) -> RoutedResult:
    """Intervals and routes with the most flow, its bound, and the front over depth.

    The caps hold for every route. Without them the result also has the most flow for
    every number of stages. Every placement passes the independent checker before it is
    returned (CheckFailed otherwise: a bug). Time limits and ``stop`` are results, with
    the best placement and the bound. InvalidInstance for caps that make no sense.
    """
    _refuse_caps(instance, max_stages, max_latency_ms)
    limits = SearchLimits(
        time_limit_s=time_limit_s,
        gap=Fraction(str(gap)),
        workers=workers,
        seed=seed,
        stop=stop or (lambda: False),
        report=on_progress or (lambda improvement: None),
    )
    problem = compile_routed(instance)
    caps = Caps(max_stages, max_latency_ms)
    free = max_stages is None and max_latency_ms is None
    outcome = RoutedSearch(problem, caps, limits).run(with_front=free)
    result = _result(instance, problem, caps, limits, outcome)
    check_routed(instance, result).raise_if_bad()
    return result


def _refuse_caps(
    instance: RoutedInstance, stages: int | None, latency_ms: float | None
) -> None:
    if stages is not None and stages < 1:
        raise _refused("--max-stages", str(stages), "at least 1")
    if latency_ms is None:
        return
    if not 0 < latency_ms <= 1e12:
        raise _refused("--max-latency", f"{latency_ms:g}", "milliseconds above 0")
    if not instance.has_latency:
        allowed = (
            "a cap only where links have latency_ms, or stage_ms_by_layers is given"
        )
        raise _refused("--max-latency", f"{latency_ms:g}", allowed)


def _refused(option: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("command line", [FieldError(option, found, allowed)])


def _result(
    instance: RoutedInstance,
    problem: RoutedProblem,
    caps: Caps,
    limits: SearchLimits,
    outcome: RoutedOutcome,
) -> RoutedResult:
    best = outcome.best
    flow = best.found.flow
    timed = instance.has_latency
    return RoutedResult(
        status=best.status,
        stopped_by=outcome.stopped_by,
        max_flow=_tokens(best.found.value) if best.found.value else None,
        bound=_tokens(best.bound),
        gap=best.gap,
        max_depth=flow.stages or None,
        hop_by_hop_depth=flow.hop_by_hop_stages or None,
        max_stages=caps.stages,
        max_latency_ms=caps.latency_ms,
        intervals=_intervals(problem, best.found),
        routes=_routes(problem, flow),
        depths=_depths(problem, best.found, timed=timed),
        expected_latency_ms=_latency_ms(problem, best.found, flow.routes, timed=timed),
        front=tuple(_front_point(problem, p, timed=timed) for p in outcome.front),
        method="chains of blocks; bound by refuted covers of layers",
        seconds=round(limits.elapsed_s(), 3),
        seed=limits.seed,
        instance_sha256=routed_sha256(instance),
        versions={
            "shardwright": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
    )


def _front_point(problem: RoutedProblem, point: Point, *, timed: bool) -> FrontPoint:
    flow = point.found.flow
    status = point.status
    assert status in (Status.OPTIMAL, Status.FEASIBLE)
    return FrontPoint(
        max_stages=point.max_stages or flow.stages,
        stages=flow.stages,
        max_flow=_tokens(point.found.value),
        bound=_tokens(point.bound),
        status=status,
        gap=point.gap or 0.0,
        expected_latency_ms=_latency_ms(problem, point.found, flow.routes, timed=timed),
        intervals=_intervals(problem, point.found),
        routes=_routes(problem, flow),
        seconds=round(point.seconds, 3),
    )


def _intervals(problem: RoutedProblem, found: Found) -> dict[str, tuple[int, int]]:
    placed = sorted(found.placement.items(), key=lambda item: (item[1], item[0]))
    return {str(problem.ids[n]): (start, start + held) for n, (start, held) in placed}


def _routes(problem: RoutedProblem, flow: RoutedFlow) -> tuple[Route, ...]:
    ordered = sorted(flow.routes, key=lambda route: (-route[1], route[0]))
    return tuple(
        Route(nodes=tuple(problem.ids[n] for n in nodes), tokens_per_s=_tokens(rate))
        for nodes, rate in ordered
    )


def _depths(
    problem: RoutedProblem, found: Found, *, timed: bool
) -> tuple[DepthShare, ...]:
    by_depth: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for nodes, rate in found.flow.routes:
        by_depth.setdefault(len(nodes), []).append((nodes, rate))
    return tuple(
        DepthShare(
            stages=stages,
            tokens_per_s=_tokens(sum(rate for _, rate in routes)),
            expected_latency_ms=_latency_ms(problem, found, routes, timed=timed),
        )
        for stages, routes in sorted(by_depth.items())
    )


def _latency_ms(
    problem: RoutedProblem,
    found: Found,
    routes: Iterable[tuple[tuple[int, ...], int]],
    *,
    timed: bool,
) -> float | None:
    """Mean over the flow of a pass along its route; None without any times."""
    pairs = [(problem.latency_ms(n, found.placement), rate) for n, rate in routes]
    total = sum(rate for _, rate in pairs)
    if not timed or not total:
        return None
    return sum(ms * rate for ms, rate in pairs) / total


def _tokens(utok: int) -> float:
    return utok / UTOK
