"""Experts: the assignment matrix of a mixture, and where every expert lies."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.plan.experts import (
    Place,
    balance,
    expert_count,
    experts_in_order,
    map_of,
    redundant_slots,
)
from shardwright.plan.groups import grouped, merged, ranges, shape_words
from shardwright.plan.tables.text import (
    Cell,
    amount,
    fitted,
    gb,
    grid,
    number,
    short,
    titled,
    wrapped,
)
from shardwright.plan.view import PlanView
from shardwright.schema.plan import ExpertMap, MemoryParts, Replica, Stage

_HEADERS = (
    "\nnode",
    "\nGPU",
    "repl\nica",
    "\nstage",
    "\nTP",
    "\nCP",
    "rank\nDP",
    "\nEP",
    "\nlayers",
    "\nexperts",
    "memory\nweights",
    "per\nKV",
    "GPU\nother",
    "in GB\ntotal",
    "\nrole",
)


_CONTEXT = "\nCP"
_ALIGN = "lrrrrrrrllrrrrl"


def experts_matrix(view: PlanView, title: str) -> str:
    """One row per GPU in use, with its ranks and its experts."""
    rows = [
        row
        for index, replica in enumerate(view.document.replicas())
        for row in _replica_rows(view, index, replica)
    ]
    several = grouped(s for r in view.document.replicas() for s in r.stages)
    kept = [i for i, name in enumerate(_HEADERS) if several or name != _CONTEXT]
    headers, align = [_HEADERS[i] for i in kept], "".join(_ALIGN[i] for i in kept)
    cells = [[row[i] for i in kept] for row in rows]
    return titled(title, fitted(headers, cells, align), _legend(view))


def _legend(view: PlanView) -> str:
    stages = [s for group in view.groups for s in group.replica.stages]
    context = ", context (CP)" if grouped(stages) else ""
    solved = any(map_of(view.document, stage) for stage in stages)
    words = (
        "slots of its map, see the table experts" if solved else "of every MoE layer"
    )
    parts = max(stage.shape.moe_tp for stage in stages)
    split = f", each split over {amount(parts, 'GPU')} (MoE-TP)" if parts > 1 else ""
    return wrapped(
        "",
        f"Ranks within the stage: attention TP{context}, attention DP, EP. Experts: "
        f"{words}{split}. Role: P primary (first rank of its stage), S secondary"
        f"{_apart(stages)}.",
    )


def _apart(stages: list[Stage]) -> str:
    if not any(stage.expert_unit for stage in stages):
        return ""
    return ", A attention and E experts alone (disaggregated)"


def _replica_rows(view: PlanView, index: int, replica: Replica) -> Iterator[list[Cell]]:
    for number_, stage in enumerate(replica.stages):
        for rank, gpu in enumerate(stage.gpus):
            place = Place.of(stage, rank)
            experts = "-" if place.ep is None else held(view, stage, place.ep)
            yield [
                gpu.node,
                str(gpu.gpu),
                str(index),
                str(number_),
                *("-" if r is None else str(r) for r in vars(place).values()),
                f"[{stage.layers[0]}, {stage.layers[1]})",
                short(experts, 13),
                *_memory_cells(_memory_of(stage, place)),
                ("S" if rank else "P") + _role(stage, place),
            ]


def _role(stage: Stage, place: Place) -> str:
    if stage.expert_unit is None:
        return ""
    return " A" if place.ep is None else " E"


def _memory_of(stage: Stage, place: Place) -> MemoryParts:
    apart = stage.expert_unit
    if apart is None or place.ep is None:
        return stage.memory_bytes
    return apart.memory_bytes


def held(view: PlanView, stage: Stage, ep_rank: int) -> str:
    """Experts of one expert rank: 0-15, or its slots where a map was solved."""
    if map_of(view.document, stage) is None:
        return ranges(experts_in_order(view.instance, stage, ep_rank))
    first = ep_rank * stage.expert_slots
    return f"slots {ranges(range(first, first + stage.expert_slots))}"


def _memory_cells(memory: MemoryParts) -> list[Cell]:
    other = memory.activations + memory.communication + memory.framework
    return [gb(x) for x in (memory.weights, memory.kv_cache, other, memory.total())]


def experts_table(view: PlanView) -> str:
    """Slots, redundancy and balance of every distinct stage, and its experts."""
    stages = {
        (s.shape, s.expert_slots, s.expert_unit is None): s
        for group in view.groups
        for s in group.replica.stages
        if s.expert_slots
    }
    if not stages:
        return "The model has no experts."
    count = expert_count(view.instance)
    headers = (
        "shape",
        "experts\nper layer",
        "slots\nper GPU",
        "redundant\nslots",
        "busiest GPU\nover mean",
        "map",
    )
    rows = [_stage_row(view, stage, count) for stage in stages.values()]
    return titled(
        "Experts (busiest over mean: tokens of one GPU, mean over the layers)",
        grid(headers, rows, "lrrrrl"),
        *(_places(view, stage) for stage in stages.values()),
    )


def _stage_row(view: PlanView, stage: Stage, count: int) -> list[Cell]:
    found = map_of(view.document, stage)
    return [
        shape_words([stage]),
        number(count),
        str(stage.expert_slots),
        str(redundant_slots(view.instance, stage)),
        number(balance(view.instance, view.document, stage), 4),
        "in order, uniform routing" if found is None else "solved for the loads",
    ]


def _places(view: PlanView, stage: Stage) -> str:
    """Experts of every expert rank; of a solved map, the first of its layers."""
    found = map_of(view.document, stage)
    if found is None:
        rows = merged((r, [held(view, stage, r)]) for r in range(stage.shape.ep))
        head = f"{shape_words([stage])}: the same in every MoE layer"
    else:
        rows = merged((r, [_mapped(found, r)]) for r in range(found.ep))
        head = (
            f"{shape_words([stage])}: MoE layer 0 of {len(found.layers)} "
            "(all of them: expert_map of the plan)"
        )
    cells = [[label, short(words, 80)] for label, (words,) in rows]
    return f"{head}\n\n{grid(['EP rank', 'experts'], cells, 'll')}"


def _mapped(found: ExpertMap, rank: int) -> str:
    size = found.slots_per_gpu
    return ranges(sorted(found.layers[0][rank * size : (rank + 1) * size]))
