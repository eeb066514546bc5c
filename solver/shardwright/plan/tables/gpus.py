"""Who does what: the GPU assignment matrix, the division of the model, idle GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from shardwright.plan.groups import grouped, has_experts, ranges, shape_words
from shardwright.plan.tables.experts import experts_matrix
from shardwright.plan.tables.folded import folded_table, is_folded
from shardwright.plan.tables.text import (
    Cell,
    amount,
    fitted,
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
    "CP\nrank",
    "\nlayers",
    "memory\nweights",
    "per\nKV",
    "GPU\nact.",
    "in GB\ncomm.",
    "\nother",
    "\ntotal",
    "\nrole",
)


_ALIGN = "lrrrrrlrrrrrrl"
_CONTEXT = "CP\nrank"
_TITLE = "GPU assignment (layers are half-open, GB is 1e9 bytes)"


def gpus_table(view: PlanView) -> str:
    """One row per GPU in use; of a large plan one per stage of alike replicas."""
    if is_folded(view):
        return folded_table(view, _TITLE)
    return ranks_table(view)


def ranks_table(view: PlanView) -> str:
    """One row per GPU in use, however many there are."""
    replicas = view.document.replicas()
    if any(has_experts(replica.stages) for replica in replicas):
        return experts_matrix(view, _TITLE)
    rows = [row for i, r in enumerate(replicas) for row in _replica_rows(i, r)]
    several = any(grouped(replica.stages) for replica in replicas)
    kept = [i for i, name in enumerate(_HEADERS) if several or name != _CONTEXT]
    headers, align = [_HEADERS[i] for i in kept], "".join(_ALIGN[i] for i in kept)
    return titled(
        _TITLE, fitted(headers, [[row[i] for i in kept] for row in rows], align)
    )


def _replica_rows(index: int, replica: Replica) -> Iterator[list[Cell]]:
    for number, stage in enumerate(replica.stages):
        cells = [interval(stage), *_memory_cells(stage)]
        for rank, gpu in enumerate(stage.gpus):
            context, tensor = divmod(rank, stage.shape.tp)
            yield [
                gpu.node,
                str(gpu.gpu),
                str(index),
                str(number),
                str(tensor),
                str(context % stage.shape.cp),
                *cells,
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
    """GPUs of a stage: node-0: 0-3, or node-0 to node-3 (4 nodes): 0-7."""
    nodes: dict[str, list[int]] = {}
    for gpu in stage.gpus:
        nodes.setdefault(gpu.node, []).append(gpu.gpu)
    names = list(nodes)
    words = short(names[0], 20 if len(names) == 1 else 10)
    if len(names) > 1:
        words += f" to {short(names[-1], 10)} ({len(names)} nodes)"
    found = dict.fromkeys(ranges(gpus) for gpus in nodes.values())
    return f"{words}: {' or '.join(found)}"


def modules_table(view: PlanView) -> str:
    """How the model is divided: layers and weights of every stage."""
    blocks = []
    for group in view.groups:
        stages = group.replica.stages
        total = sum(_weights(s) for s in stages)
        shaped = has_experts(stages) or grouped(stages)
        rows = [
            [
                str(i),
                gpu_names(stage),
                stage.gpu_type,
                interval(stage),
                str(stage.layers[1] - stage.layers[0]),
                gb(_weights(stage)),
                percent(_weights(stage) / total),
                shape_words([stage]) if shaped else str(stage.shape.tp),
                " + ".join(gb(m.weights) for _, _, m in stage.memory_by_role()),
            ]
            for i, stage in enumerate(stages)
        ]
        headers = [
            "stage",
            "GPUs",
            "type",
            "layers",
            "count",
            "weights\nGB",
            "share",
            "shape" if shaped else "TP",
            "GB per\nGPU",
        ]
        copies = ", copies on attention ranks included" if shaped else ""
        head = f"replica {group.label}: {gb(total)} GB of weights{copies}"
        align = "rlllrrrlr" if shaped else "rlllrrrrr"
        blocks.append(f"{head}\n\n{grid(headers, rows, align)}")
    return titled("Division of the model (GPUs of the first replica named)", *blocks)


def _weights(stage: Stage) -> int:
    return sum(n * memory.weights for _, n, memory in stage.memory_by_role())


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
