"""Every class of failures with its impact and its two re-plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic
from typing import Any

from shardwright.plan.anatomy import Anatomy
from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.tables.text import (
    amount,
    gb,
    grid,
    number,
    percent,
    short,
    titled,
)
from shardwright.resilience.classes import FailureClass, failure_classes
from shardwright.resilience.replan import REQUEST_RATE, SLO, NewPlan, Replanner
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan


@dataclass(frozen=True, eq=False)
class Failure:
    """One class: what it stops, and what can be had on the survivors.

    ``share_of_gpus`` is the lost part of the GPUs in use; ``seconds`` the time that the
    re-plans took.
    """

    failure: FailureClass
    gpus_stopped: int
    requests_per_s_left: float
    share_lost: float
    share_of_gpus: float
    keeping: NewPlan | None
    best: NewPlan | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Failures:
    """What ``failures`` returns."""

    instance: Instance
    plan: Plan
    rows: tuple[Failure, ...]
    replanned: bool

    def text(self) -> str:
        """Two tables: what a failure stops, and what can be done."""
        blocks = [_impact_table(self)]
        if self.replanned:
            blocks.append(_replan_table(self))
        return "\n\n".join(blocks)

    def document(self) -> list[dict[str, Any]]:
        """JSON-ready, one entry per class."""
        return [_document(row) for row in self.rows]


def failures(
    instance: Instance,
    plan: Plan,
    *,
    gpus: int = 1,
    nodes: int = 1,
    replan: bool = True,
    time_limit_s: float = 10.0,
    workers: int = 2,
    stop: Callable[[], bool] | None = None,
    on_class: Callable[[int, int], None] = lambda done, total: None,
) -> Failures:
    """Impact of losing any ``gpus`` GPUs and any ``nodes`` nodes, with re-plans.

    Alike failures are planned for once. Raises InstanceTooLarge for too many ways.
    """
    classes = failure_classes(instance, plan, gpus, nodes)
    planner = Replanner(instance, plan, time_limit_s, workers, stop)
    rows = []
    for i, one in enumerate(classes):
        if stop is not None and stop():
            break
        rows.append(_row(instance, plan, one, planner if replan else None))
        on_class(i + 1, len(classes))
    return Failures(instance, plan, tuple(rows), replan)


def _row(
    instance: Instance, plan: Plan, failure: FailureClass, planner: Replanner | None
) -> Failure:
    begun = monotonic()
    keeping = planner.keeping(failure.lost) if planner else None
    best = planner.best(failure.lost) if planner else None
    replicas, anatomy = plan.replicas(), Anatomy(instance, plan)
    left = [r for i, r in enumerate(replicas) if i not in failure.replicas]
    rate = Fraction(sum(r.latency.rate_mtok_per_s for r in left), 1000)
    total = sum(r.latency.rate_mtok_per_s for r in replicas)
    used = {(g.node, g.gpu) for r in replicas for s in r.stages for g in s.gpus}
    return Failure(
        failure,
        sum(len(s.gpus) for i in failure.replicas for s in replicas[i].stages),
        float(rate / anatomy.memory.mix.output_mean),
        1 - float(rate * 1000 / total) if total else 0.0,
        len(used & {*failure.lost}) / len(used),
        keeping,
        best,
        monotonic() - begun,
    )


_IMPACT = (
    "failure of",
    "such\nfailures",
    "replicas\nstopped",
    "GPUs\nstopped",
    "GPUs in\nuse lost",
    "capacity\nlost",
    "requests/s\nleft",
)


def _impact_table(found: Failures) -> str:
    rows = [
        [
            short(_words(row.failure), 30),
            str(row.failure.count),
            str(len(row.failure.replicas)),
            str(row.gpus_stopped),
            percent(row.share_of_gpus),
            percent(row.share_lost),
            number(row.requests_per_s_left, 2),
        ]
        for row in found.rows
    ]
    asked = found.instance.workload.request_rate_per_s
    note = "" if asked is None else f"Asked: {number(asked, 2)} requests/s"
    title = "What a failure stops (a replica stops as a whole)"
    return titled(title, grid(_IMPACT, rows, "lrrrrrr"), note)


_REPLAN = (
    "failure of",
    "re-plan",
    "plan on the survivors",
    "requests/s",
    "GB to\nload",
    "kept",
    "proof",
    "given up",
)


def _replan_table(found: Failures) -> str:
    rows = []
    for row in found.rows:
        rows.append(
            [short(_words(row.failure), 18), "of what stopped", *_cells(row.keeping)]
        )
        rows.append(["", "of everything", *_cells(row.best)])
    note = (
        "of what stopped: the other replicas go on untouched; GB to load: weights that "
        "GPUs do not hold yet"
    )
    return titled("What can be done", grid(_REPLAN, rows, "lllrrrll"), note)


def _cells(new: NewPlan | None) -> list[str]:
    if new is None:
        return ["none", "-", "-", "-", "-", "-"]
    words = {REQUEST_RATE: "rate", SLO: "SLOs"}
    return [
        short(plan_degrees(new.view), 24),
        number(new.requests_per_s, 2),
        gb(new.bytes_to_load, 1),
        str(new.replicas_kept),
        "proven" if new.proven else "open",
        ", ".join(words[name] for name in new.given_up) or "-",
    ]


def _words(failure: FailureClass) -> str:
    kind = "GPU" if failure.kind == "gpu" else "node"
    if failure.size > 1:
        return f"{amount(failure.size, kind)}: {', '.join(failure.units)}"
    return f"{kind} {failure.units[0]}"


def _document(row: Failure) -> dict[str, Any]:
    one = row.failure
    return {
        "kind": one.kind,
        "size": one.size,
        "such_failures": one.count,
        "example": list(one.units),
        "replicas_stopped": list(one.replicas),
        "gpus_stopped": row.gpus_stopped,
        "share_of_gpus_lost": row.share_of_gpus,
        "share_of_capacity_lost": row.share_lost,
        "requests_per_s_left": row.requests_per_s_left,
        "replan_of_what_stopped": _plan_document(row.keeping),
        "replan_of_everything": _plan_document(row.best),
        "seconds": round(row.seconds, 3),
    }


def _plan_document(new: NewPlan | None) -> dict[str, Any] | None:
    if new is None:
        return None
    return {
        "degrees": plan_degrees(new.view),
        "requests_per_s": new.requests_per_s,
        "given_up": list(new.given_up),
        "bytes_to_load": new.bytes_to_load,
        "replicas_kept": new.replicas_kept,
        "proven": new.proven,
        "plan": new.view.document.model_dump(mode="json", by_alias=True),
    }
