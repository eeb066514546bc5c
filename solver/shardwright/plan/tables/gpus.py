"""Who does what: the GPU assignment matrix, the division of the model, idle GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.plan.groups import ranges
from shardwright.plan.tables.text import (
    WIDTH,
    Cell,
    amount,
    gb,
    grid,
    percent,
    short,
    titled,
    wrapped,
)
from shardwright.plan.view import PlanView
from shardwright.schema.plan import Replica, Stage

_HEADERS = (
    "\nnode",
    "\nGPU",
    "repl\nica",
    "\nstage",
    "TP\nrank",
    "\nlayers",
    "memory\nweights",
    "per\nKV",
    "GPU\nact.",
    "in GB\ncomm.",
    "\nother",
    "\ntotal",
    "\nrole",
)


def gpus_table(view: PlanView) -> str:
    """One row per GPU in use."""
    rows = [
        row
        for index, replica in enumerate(view.document.replicas())
        for row in _replica_rows(index, replica)
    ]
    return titled(
        "GPU assignment (layers are half-open, GB is 1e9 bytes)", _fitted(rows)
    )


def _fitted(rows: list[list[Cell]]) -> str:
    """The matrix; names of nodes are cut as far as its width needs."""
    text = _matrix(rows, _NODE_WIDTH)
    over = max(map(len, text.splitlines())) - WIDTH
    return text if over <= 0 else _matrix(rows, max(6, _NODE_WIDTH - over))


_NODE_WIDTH = 24


def _matrix(rows: list[list[Cell]], width: int) -> str:
    cut = [[short(node, width), *cells] for node, *cells in rows]
    return grid(_HEADERS, cut, "lrrrrlrrrrrrl")


def _replica_rows(index: int, replica: Replica) -> Iterator[list[Cell]]:
    for number, stage in enumerate(replica.stages):
        for rank, gpu in enumerate(stage.gpus):
            yield [
                gpu.node,
                str(gpu.gpu),
                str(index),
                str(number),
                str(rank),
                interval(stage),
                *_memory_cells(stage),
                "Primary" if rank == 0 else "Secondary",
            ]


def _memory_cells(stage: Stage) -> list[Cell]:
    memory = stage.memory_bytes
    parts = (memory.weights, memory.kv_cache, memory.activations)
    overheads = (memory.communication, memory.framework)
    return [gb(size) for size in (*parts, *overheads, memory.total())]


def interval(stage: Stage) -> str:
    """Layers as the documents write them: [0, 20)."""
    return f"[{stage.layers[0]}, {stage.layers[1]})"


def gpu_names(stage: Stage) -> str:
    """GPUs of a stage: node-0: 0-3."""
    node = stage.gpus[0].node
    return f"{short(node, 20)}: {ranges(gpu.gpu for gpu in stage.gpus)}"


def modules_table(view: PlanView) -> str:
    """How the model is divided: layers and weights of every stage."""
    blocks = []
    for group in view.groups:
        total = sum(s.memory_bytes.weights * s.shape.tp for s in group.replica.stages)
        rows = [
            [
                str(i),
                gpu_names(stage),
                stage.gpu_type,
                interval(stage),
                str(stage.layers[1] - stage.layers[0]),
                gb(stage.memory_bytes.weights * stage.shape.tp),
                percent(stage.memory_bytes.weights * stage.shape.tp / total),
                str(stage.shape.tp),
                gb(stage.memory_bytes.weights),
            ]
            for i, stage in enumerate(group.replica.stages)
        ]
        headers = [
            "stage",
            "GPUs",
            "type",
            "layers",
            "count",
            "weights\nGB",
            "share",
            "TP",
            "GB per\nGPU",
        ]
        head = f"replica {group.label}: {gb(total)} GB of weights"
        blocks.append(f"{head}\n\n{grid(headers, rows, 'rlllrrrrr')}")
    return titled("Division of the model (GPUs of the first replica named)", *blocks)


def idle_table(view: PlanView) -> str:
    """Every GPU that is not used, and why."""
    if not view.idle:
        return "Every GPU is used."
    found: dict[tuple[str, str, str], list[int]] = {}
    for gpu in view.idle:
        found.setdefault((gpu.node, gpu.gpu_type, gpu.reason), []).append(gpu.gpu)
    lines = [
        wrapped(f"  {short(node, 24)} GPU {ranges(gpus)} ({gpu_type}): ", reason)
        for (node, gpu_type, reason), gpus in found.items()
    ]
    return "\n".join([f"{amount(len(view.idle), 'GPU')} not used", "", *lines])
