"""Scaling studies: the next sizes up, each solved, beside plans that somebody names.

Per variant: the most requests/s under the targets, and the fewest GPUs for the rate
that is asked. A named plan (``tp=2,pp=8``) is solved with these decisions fixed; where
it breaks limits of balance or targets, it is shown without them and marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from shardwright.explain import changes
from shardwright.ingest import catalogue
from shardwright.ingest.consistency import consistency_errors
from shardwright.plan.tables.summary import plan_degrees
from shardwright.plan.tables.text import cut, grid, number, percent, short, wrapped
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.result import Status
from shardwright.schema.workload import Lengths, Workload
from shardwright.solve import Solution, solve

BEST = "best"


@dataclass(frozen=True, eq=False)
class Variant:
    """One size: the instance, or why it is none."""

    name: str
    instance: Instance | None
    refused: str = ""


@dataclass(frozen=True, eq=False)
class ScaleRow:
    """One plan at one size: ``plan`` is ``best`` or the decisions that were named.

    ``most`` is the plan with the most requests/s, ``fewest`` the one with the fewest
    GPUs at the asked rate, None where neither was asked. ``broken`` names what had to
    be left out. ``ratio`` compares requests/s with the first size's.
    """

    variant: Variant
    plan: str
    most: Solution | None
    fewest: Solution | None
    broken: tuple[str, ...]
    seconds: float
    ratio: float | None = None

    @property
    def status(self) -> Status:
        """That of the most requests/s; INVALID for a size that is refused."""
        return Status.INVALID if self.most is None else self.most.status

    @property
    def total(self) -> dict[str, Any] | None:
        """Figures of the plan with the most requests/s."""
        if self.most is None or self.most.plan is None:
            return None
        return dict(self.most.plan.metrics["total"])

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        view = self.most.plan if self.most is not None else None
        fewest = self.fewest.plan if self.fewest is not None else None
        return {
            "size": self.variant.name,
            "plan": self.plan,
            "status": self.status.value,
            "refused": self.variant.refused or None,
            "left_out": [*self.broken],
            "gap": None if self.most is None else self.most.result.gap,
            "degrees": None if view is None else plan_degrees(view),
            "totals": self.total,
            "requests_per_s_over_first": self.ratio,
            "gpus_for_asked_rate": None
            if fewest is None
            else fewest.metrics["total"]["gpus_used"],
            "status_for_asked_rate": None
            if self.fewest is None
            else self.fewest.status.value,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, eq=False)
class Scaling:
    """What ``scale`` returns."""

    instance: Instance
    rows: tuple[ScaleRow, ...]
    complete: bool

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "instance": self.instance.name,
            "complete": self.complete,
            "rows": [row.document() for row in self.rows],
        }


def scale(
    instance: Instance,
    *,
    nodes: Sequence[int] = (2, 4),
    layers: Sequence[int] = (2,),
    contexts: Sequence[int] = (2, 4),
    models: Sequence[str] = (),
    plans: Sequence[tuple[str, Fix]] = (),
    time_limit_s: float = 20.0,
    workers: int = 2,
    stop: Callable[[], bool] | None = None,
    on_row: Callable[[int], None] = lambda total: None,
) -> Scaling:
    """The instance and its next sizes up, each with its best and the named plans.

    ``nodes``, ``layers`` (the model's own, repeated) and ``contexts`` (with the
    lengths of requests) are factors; ``models`` are catalogue names. Raises
    InvalidInstance for a name that the catalogue does not have.
    """
    halt = stop or (lambda: False)
    sizes = [*variants(instance, nodes, layers, contexts, models)]
    named = [(BEST, None), *plans]
    rows: list[ScaleRow] = []
    for variant in sizes:
        for words, fix in named if variant.instance is not None else named[:1]:
            if halt():
                return Scaling(instance, tuple(rows), False)
            row = _row(variant, words, fix, time_limit_s, workers, halt)
            rows.append(_compared(row, rows))
            on_row(len(sizes) * len(named))
    return Scaling(instance, tuple(rows), True)


def variants(
    instance: Instance,
    nodes: Sequence[int],
    layers: Sequence[int],
    contexts: Sequence[int],
    models: Sequence[str],
) -> Iterator[Variant]:
    """As given, more nodes, more layers, longer requests, other models.

    A deeper model stands on the nodes as given and on the first factor of them.
    """
    yield Variant("as given", instance)
    for factor in nodes:
        yield _checked(f"{factor}x nodes", _more_nodes(instance, factor))
    for factor in layers:
        deeper = _deeper(instance, factor)
        yield _checked(f"{factor}x layers", deeper)
        for more in nodes[:1]:
            yield _checked(f"{more}x nodes {factor}x layers", _more_nodes(deeper, more))
    for factor in contexts:
        yield _checked(f"{factor}x context", _longer(instance, factor))
    for name in models:
        spec = catalogue.model(name)
        larger = instance.model_copy(update={"model": spec})
        yield _checked(spec.name.rsplit("/", 1)[-1], larger)


def _checked(name: str, instance: Instance) -> Variant:
    errors = consistency_errors(instance)
    if errors:
        return Variant(name, None, "; ".join(map(str, errors)))
    return Variant(name, instance)


def _more_nodes(instance: Instance, factor: int) -> Instance:
    for i, group in enumerate(instance.cluster.nodes):
        instance = changes.with_nodes(instance, i, factor * group.count)
    return instance


def _deeper(instance: Instance, factor: int) -> Instance:
    model = instance.model
    update = {"name": f"{model.name} x{factor}", "layers": model.layers * factor}
    return instance.model_copy(update={"model": model.model_copy(update=update)})


def _longer(instance: Instance, factor: int) -> Instance:
    workload: Workload = instance.workload
    return changes.with_workload(
        instance,
        max_context_tokens=factor * workload.max_context_tokens,
        input_tokens=_times(workload.input_tokens, factor),
    )


def _times(lengths: Lengths, factor: int) -> Lengths:
    """Every length times the factor."""
    if lengths.constant is not None:
        return Lengths(constant=factor * lengths.constant)
    if lengths.mean is not None:
        return Lengths(mean=factor * lengths.mean, cv=lengths.cv)
    pairs = lengths.histogram or ()
    return Lengths(histogram=tuple((factor * n, w) for n, w in pairs))


def _row(
    variant: Variant,
    words: str,
    fix: Fix | None,
    time_limit_s: float,
    workers: int,
    stop: Callable[[], bool],
) -> ScaleRow:
    begun = monotonic()
    if variant.instance is None:
        return ScaleRow(variant, words, None, None, (), 0.0)

    def solved(instance: Instance) -> Solution:
        return solve(
            instance,
            time_limit_s=time_limit_s,
            workers=workers,
            stop=stop,
            explain=False,
        )

    asked = variant.instance
    if fix is not None:
        asked = asked.model_copy(update={"fix": fix})
    if errors := consistency_errors(asked):
        refused = replace(variant, refused="; ".join(map(str, errors)))
        return ScaleRow(refused, words, None, None, (), 0.0)
    free = changes.without_rate(asked)
    broken: tuple[str, ...] = ()
    for broken in ((),) if fix is None else _LADDER:
        most = solved(_without(free, broken))
        if most.status is not Status.INFEASIBLE:
            break
    fewest = None
    if asked.workload.request_rate_per_s is not None and fix is None:
        fewest = solved(asked.model_copy(update={"objective": ("gpus", "tpot")}))
    return ScaleRow(variant, words, most, fewest, broken, monotonic() - begun)


_LADDER: tuple[tuple[str, ...], ...] = (
    (),
    ("balance",),
    ("targets",),
    ("balance", "targets"),
)
_BALANCE = ("memory_imbalance", "compute_imbalance", "communication_share")


def _without(instance: Instance, names: tuple[str, ...]) -> Instance:
    """Without limits of balance, or without the latency targets."""
    if "balance" in names:
        instance = changes.with_limits(instance, **dict.fromkeys(_BALANCE))
    return instance.model_copy(update={"slo": ()}) if "targets" in names else instance


def _compared(row: ScaleRow, before: Sequence[ScaleRow]) -> ScaleRow:
    """Requests/s over those of the best plan of the instance as given."""
    mine, first = row.total, before[0].total if before else row.total
    if mine is None or first is None or not first["requests_per_s"]:
        return row
    return replace(row, ratio=mine["requests_per_s"] / first["requests_per_s"])


def scale_text(found: Scaling) -> str:
    """One line per size and plan."""
    heads = ["size", "plan", "degrees", "GPUs", "req/s", "of now", "TPOT\nms"]
    heads += ["TTFT\nms", "GPUs at\nrate", "proof"]
    rows = [_cells(row) for row in found.rows]
    rate = found.instance.workload.request_rate_per_s
    asked = "" if rate is None else f"; the rate: {number(rate, 2)} requests/s"
    blocks = [
        f"{found.instance.name}: most requests/s under the targets{asked}",
        grid(heads, rows, "lllrrrrrrl"),
    ]
    refused = [row for row in found.rows if row.variant.refused]
    blocks += [wrapped(f"{r.variant.name}: ", r.variant.refused) for r in refused]
    marks = dict.fromkeys(row.broken for row in found.rows if row.broken and row.total)
    blocks += [
        f"{_mark(m)} breaks, and is shown without: {', '.join(m)}" for m in marks
    ]
    if not found.complete:
        blocks.append("stopped before all sizes were solved")
    return "\n\n".join(blocks)


def _cells(row: ScaleRow) -> list[str]:
    total = row.total
    plan = f"{short(row.plan, 10)} {_mark(row.broken)}".rstrip()
    name = short(row.variant.name, 18)
    if total is None:
        words = {Status.INVALID: "refused", Status.INFEASIBLE: "none"}
        status = words.get(row.status, "not decided")
        return [name, short(row.plan, 10), status, "-", "-", "-", "-", "-", "-", ""]
    assert row.most is not None and row.most.plan is not None
    return [
        name,
        plan,
        short(plan_degrees(row.most.plan), 15),
        number(total["gpus_used"]),
        cut(total["requests_per_s"], 2),
        "-" if row.ratio is None else f"{row.ratio:.2f}x",
        number(total["tpot_ms"], 1),
        number(total["ttft_ms"]),
        _gpus(row.fewest),
        _proof(row.most),
    ]


def _mark(broken: tuple[str, ...]) -> str:
    return "*" * _LADDER.index(broken)


def _gpus(fewest: Solution | None) -> str:
    if fewest is None:
        return ""
    if fewest.plan is None:
        return "none" if fewest.status is Status.INFEASIBLE else "open"
    return number(fewest.plan.metrics["total"]["gpus_used"])


def _proof(solution: Solution) -> str:
    if solution.status is Status.OPTIMAL:
        return "proven"
    gap = solution.result.gap
    return "no bound" if gap is None else f"gap {percent(gap)}"
