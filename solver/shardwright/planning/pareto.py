"""Pareto fronts: one axis optimised while the other is held to a limit, step by step.

Every point is a solve with a proof (epsilon-constraint). Between two points with
different values of the optimised axis a front may have more: the widest such interval
is divided until the number of points that was asked for is reached, or none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil, inf, log, sqrt
from time import monotonic
from typing import Any

from shardwright.ingest.consistency import consistency_errors
from shardwright.ingest.refuse import one_of, refuse
from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.view import PlanView
from shardwright.planning.pareto_axes import (
    FIGURES,
    Axis,
    axis,
    figure,
    limited,
    prepared,
)
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.solve import Solution, solve

_NEAR = 0.02
"""Limits closer than this share are one."""
_SOLVES_PER_POINT = 3
"""Limits that are tried at most, where the front has fewer points than asked for."""


@dataclass(frozen=True, eq=False)
class FrontPoint:
    """A plan that is best in the first axis under a limit on the second one.

    ``x`` and ``y`` are its figures in the axes' own units, ``bound`` the proven bound
    on ``x`` under the limit, ``gap`` their relative distance.
    """

    x: float
    y: float
    bound: float | None
    gap: float | None
    status: Status
    limit: float | None
    view: PlanView
    seconds: float

    def document(self, first: Axis, second: Axis) -> dict[str, Any]:
        """JSON-ready."""
        total = self.view.metrics["total"]
        return {
            first.key: self.x,
            second.key: self.y,
            f"{first.key}_bound": self.bound,
            "status": self.status.value,
            "gap": self.gap,
            "degrees": plan_degrees(self.view),
            "gpus": total["gpus_used"],
            "requests_per_s": total["requests_per_s"],
            "output_tokens_per_s": total["output_tokens_per_s"],
            "tpot_ms": total["tpot_ms"],
            "ttft_ms": total["ttft_ms"],
            "cost_usd_per_hour": total["cost_usd_per_hour"],
            "seconds": round(self.seconds, 3),
            "plan": self.view.document.model_dump(mode="json", by_alias=True),
        }


@dataclass(frozen=True, eq=False)
class Front:
    """What ``pareto`` returns.

    ``axes`` are in the order asked for; each point has the best ``optimised`` figure
    under a limit on ``limited``. ``complete``: there is no further point, to 2% of the
    limited axis. ``undecided`` limits had neither a plan nor a proof in their time.
    """

    instance: Instance
    axes: tuple[Axis, Axis]
    optimised: Axis
    limited: Axis
    points: tuple[FrontPoint, ...]
    solves: int
    complete: bool
    undecided: int = 0

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "instance": self.instance.name,
            "axes": [one.key for one in self.axes],
            "optimised": self.optimised.key,
            "solves": self.solves,
            "complete": self.complete,
            "undecided": self.undecided,
            "points": [p.document(self.optimised, self.limited) for p in self.points],
        }


def pareto(
    instance: Instance,
    front: str = "throughput_per_gpu,tokens_per_s_per_user",
    *,
    points: int = 8,
    time_limit_s: float = 20.0,
    workers: int = 2,
    stop: Callable[[], bool] | None = None,
    on_solve: Callable[[int], None] = lambda total: None,
) -> Front:
    """The front of two axes, at most ``points`` of it; all other limits hold.

    ``time_limit_s`` is that of one solve. The request rate is left out where the
    throughput is an axis. Raises InvalidInstance for axes that do not go together.
    """
    names = [name.strip() for name in front.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        refuse("command line", "--front", repr(front), "two different axes, as a,b")
    first, second = axis(names[0]), axis(names[1])
    effort = _Effort(time_limit_s, workers, stop or (lambda: False), on_solve)
    question = _Question.of(instance, first, second, effort)
    search = _Search(question, max(2, points))
    found, complete = search.run()
    kept = _undominated(found, question.first, question.second)
    return Front(
        instance,
        (first, second),
        question.first,
        question.second,
        tuple(kept),
        effort.solves,
        complete,
        len(search.undecided),
    )


@dataclass(eq=False)
class _Effort:
    time_limit_s: float
    workers: int
    stop: Callable[[], bool]
    on_solve: Callable[[int], None]
    solves: int = 0

    def solved(self, instance: Instance) -> Solution:
        self.solves += 1
        self.on_solve(self.solves)
        return solve(
            instance,
            time_limit_s=self.time_limit_s,
            workers=self.workers,
            stop=self.stop,
            explain=False,
        )


@dataclass(frozen=True, eq=False)
class _Question:
    """Best value of ``first`` under an upper limit that stands for ``second``."""

    instance: Instance
    first: Axis
    second: Axis
    effort: _Effort

    @classmethod
    def of(
        cls, instance: Instance, first: Axis, second: Axis, effort: _Effort
    ) -> _Question:
        rates = ("rate", "throughput")
        if first.name in ("gpus", "cost") and second.name in rates:
            # a limit on GPUs or cost finds every step, one on rates would miss some
            first, second = second, first
        if first.name not in FIGURES:
            refuse(
                "command line", "--front", repr(first.name),
                f"the first axis is {one_of(FIGURES)}",
            )  # fmt: skip
        if second.name in (*rates, "throughput_per_gpu"):
            refuse(
                "command line", "--front", repr(second.name),
                "the second axis is a latency, gpus, cost or tokens_per_s_per_user",
            )  # fmt: skip
        return cls(prepared(instance, first, second), first, second, effort)

    def solved(self, limit: float | None) -> FrontPoint | Status:
        """The best plan within the limit, or why there is none."""
        begun = monotonic()
        asked = limited(self.instance, self.second, limit)
        if consistency_errors(asked):
            return Status.INVALID
        if self.first.name == "throughput_per_gpu":
            found = _best_per_gpu(asked, self.effort)
        else:
            found = _best(asked, self.first, self.effort)
        if isinstance(found, Status):
            return found
        solution, x, bound = found
        assert solution.plan is not None
        gap = None if bound is None else abs(x - bound) / max(abs(bound), 1e-12)
        return FrontPoint(
            x,
            figure(solution, self.second),
            bound,
            gap,
            Status.OPTIMAL if gap == 0 else Status.FEASIBLE,
            limit,
            solution.plan,
            monotonic() - begun,
        )

    def limit_of(self, point: FrontPoint) -> float:
        """The figure of the second axis as an upper limit."""
        if self.second.name == "tokens_per_s_per_user":
            return 1000 / point.y
        return point.y


_Found = tuple[Solution, float, float | None]


def _best(instance: Instance, first: Axis, effort: _Effort) -> _Found | Status:
    solution = effort.solved(instance)
    if solution.plan is None:
        return solution.status
    goal = solution.result.objectives[0]
    value = figure(solution, first)
    if goal.bound is None or not goal.value:
        return solution, value, None
    share = 1.0 if goal.bound == goal.value else goal.bound / goal.value
    return solution, value, value * share


def _best_per_gpu(instance: Instance, effort: _Effort) -> _Found | Status:
    """Most tokens/s per GPU: that of a fleet is at most that of its best replica.

    With at most G GPUs a replica makes at most T and needs n for it, so those of s
    GPUs, s <= G, have T/max(s, n) or less: after the best ratio r is known, only
    sizes below T/r are left.
    """
    best: Solution | None = None
    proven, most = True, instance.limits.max_gpus
    while most is None or most >= 1:
        limit = None if most is None else float(most)
        solution = effort.solved(limited(instance, FIGURES["gpus"], limit))
        if solution.plan is None:
            if best is None:
                return solution.status
            proven &= solution.status is Status.INFEASIBLE
            break
        if best is None or _ratio(solution) > _ratio(best):
            best = solution
        proven &= solution.status is Status.OPTIMAL
        total = solution.plan.metrics["total"]
        left = Fraction(total["output_tokens_per_s"]) / _ratio(best)
        most = min(int(total["gpus_used"]), ceil(left)) - 1
    if best is None:
        return Status.INFEASIBLE
    ratio = float(_ratio(best))
    return best, ratio, ratio if proven else None


def _ratio(solution: Solution) -> Fraction:
    assert solution.plan is not None
    total = solution.plan.metrics["total"]
    return Fraction(total["output_tokens_per_s"]) / int(total["gpus_used"])


@dataclass(eq=False)
class _Search:
    """Points by their limit, the tightest first; below ``nothing`` there is no plan."""

    question: _Question
    wanted: int
    found: list[FrontPoint] = field(default_factory=list)
    nothing: float = 0.0
    asked: int = 0
    undecided: set[float] = field(default_factory=set)

    def run(self) -> tuple[list[FrontPoint], bool]:
        """The points, and whether there are no others."""
        first = self.question.solved(None)
        if isinstance(first, Status):
            return [], first is Status.INFEASIBLE
        self.found = [first]
        while len(self._distinct()) < self.wanted:
            asked, effort = self.asked, self.question.effort
            if effort.stop() or asked >= _SOLVES_PER_POINT * self.wanted:
                return self.found, False
            limit = self._next()
            if limit is None:
                return self.found, not self.undecided
            self._try(limit)
        return self.found, self._next() is None and not self.undecided

    def _try(self, limit: float) -> None:
        self.asked += 1
        point = self.question.solved(limit)
        if isinstance(point, FrontPoint):
            found = [*self.found, point]
            self.found = sorted(found, key=lambda p: (self._y(p), self._limit(p)))
        elif point in (Status.INFEASIBLE, Status.INVALID):
            self.nothing = max(self.nothing, limit)
        else:
            self.undecided.add(limit)

    def _y(self, point: FrontPoint) -> float:
        return self.question.limit_of(point)

    def _limit(self, point: FrontPoint) -> float:
        return self._y(point) if point.limit is None else point.limit

    def _distinct(self) -> set[float]:
        return {point.x for point in self.found}

    def _next(self) -> float | None:
        """A limit inside the interval where most is open; None when none is."""
        best: tuple[float, float] | None = None
        for low, high, change in self._intervals():
            middle = self._between(low, high)
            if middle is None or any(
                abs(u / middle - 1) < _NEAR for u in self.undecided
            ):
                continue
            score = change * (log(high / low) if low else inf)
            if best is None or score > best[0]:
                best = (score, middle)
        return None if best is None else best[1]

    def _intervals(self) -> Iterator[tuple[float, float, float]]:
        """Open intervals of the limit, and how much the first axis changes there."""
        spread = abs(log(self.found[-1].x / self.found[0].x)) or 0.1
        yield self.nothing, self._y(self.found[0]), spread
        for tight, loose in pairwise(self.found):
            if tight.x != loose.x:
                change = abs(log(loose.x / tight.x))
                yield self._limit(tight), self._y(loose), change

    def _between(self, low: float, high: float) -> float | None:
        if self.question.second.name == "gpus":
            middle = (int(low) + int(high)) // 2
            return float(middle) if low < middle < high else None
        if low == 0:
            return high / 2
        return sqrt(low * high) if high > low * (1 + _NEAR) else None


def _undominated(
    found: list[FrontPoint], first: Axis, second: Axis
) -> list[FrontPoint]:
    """Points that no other one beats in one axis without losing in the other."""

    def worth(point: FrontPoint) -> tuple[float, float]:
        return (
            point.x if first.up else -point.x,
            point.y if second.up else -point.y,
        )

    kept: list[FrontPoint] = []
    for point in sorted(found, key=worth, reverse=True):
        if not kept or worth(point)[1] > worth(kept[-1])[1]:
            kept.append(point)
    return kept
