"""The GPU assignment of a large plan: one row per stage of replicas that are alike."""

from __future__ import annotations

from shardwright.plan.anatomy import gpu_count
from shardwright.plan.balance import all_stages
from shardwright.plan.groups import ReplicaGroup, ranges, shape_words
from shardwright.plan.tables.text import (
    Cell,
    fitted,
    gb,
    number,
    short,
    titled,
    wrapped,
)
from shardwright.plan.view import PlanView
from shardwright.schema.plan import Stage

MOST_ROWS = 1024
"""GPUs in use up to which each has a row of its own."""

_HEADERS = (
    "\nnodes",
    "of\nthem",
    "GPUs\non each",
    "\nreplicas",
    "\nstage",
    "\nshape",
    "\nlayers",
    "GB per\nweights",
    "\nKV",
    "GPU\ntotal",
)


def is_folded(view: PlanView) -> bool:
    """Whether the plan has more GPUs than are listed one by one."""
    return gpu_count(all_stages(view.document)) > MOST_ROWS


def folded_table(view: PlanView, title: str) -> str:
    """Rows of alike replicas gathered; the ranks of single GPUs are left out."""
    rows = [
        _row(view, group, number_)
        for group in view.groups
        for number_ in range(len(group.replica.stages))
    ]
    legend = wrapped(
        "",
        f"More than {number(MOST_ROWS)} GPUs: equal replicas share a row. Every GPU "
        "with its rank: --tables ranks, --json, or plan.json and tables.txt of "
        "--save-dir.",
    )
    return titled(title, fitted(_HEADERS, rows, "lrlllllrrr"), legend)


def _row(view: PlanView, group: ReplicaGroup, number_: int) -> list[Cell]:
    replicas = view.document.replicas()
    stage = group.replica.stages[number_]
    nodes: dict[str, list[int]] = {}
    for index in group.indices:
        mine: dict[str, list[int]] = {}
        for gpu in replicas[index].stages[number_].gpus:
            mine.setdefault(gpu.node, []).append(gpu.gpu)
        for node, gpus in mine.items():
            nodes.setdefault(node, []).extend(gpus)
    held = dict.fromkeys(ranges(sorted(gpus)) for gpus in nodes.values())
    names = list(nodes)
    first = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
    return [
        first,
        number(len(names)),
        short(" or ".join(held), 12),
        short(group.label, 12),
        str(number_),
        shape_words([stage]),
        f"[{stage.layers[0]}, {stage.layers[1]})",
        *_memory_cells(stage),
    ]


def _memory_cells(stage: Stage) -> list[Cell]:
    """Bytes per GPU, attention and expert GPUs apart where they are."""

    def each(*parts: str) -> Cell:
        return " / ".join(
            gb(sum(getattr(memory, part) for part in parts))
            for _, _, memory in stage.memory_by_role()
        )

    every = ("weights", "kv_cache", "activations", "communication", "framework")
    return [each("weights"), each("kv_cache"), each(*every)]
