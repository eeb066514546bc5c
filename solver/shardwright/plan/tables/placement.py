"""Where every rank lies: node, GPU, UUID, NUMA domain, NIC and rail, and its links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardwright.plan.tables.text import Cell, fitted, short, titled
from shardwright.plan.view import PlanView
from shardwright.problem.topology import Gpu, Topology
from shardwright.schema.plan import Stage

_HEADERS = (
    "\nnode",
    "\nGPU",
    "\nUUID",
    "\nNUMA",
    "\nNIC",
    "\nrail",
    "rack or\nleaf",
    "repl\nica",
    "\nstage",
    "\nrank",
    "link in\nTP group",
    "link to\nnext stage",
)
_ALIGN = "lrllllllrrll"


def placement_table(view: PlanView) -> str:
    """One row per rank; links are the slowest of the TP group and of the hop."""
    topology = Topology.from_cluster(view.instance.cluster)
    numbers = {node.name: i for i, node in enumerate(topology.nodes)}
    rows = []
    for r, replica in enumerate(view.document.replicas()):
        gpus = [
            [(numbers[gpu.node], gpu.gpu) for gpu in stage.gpus]
            for stage in replica.stages
        ]
        rank = 0
        for s, stage in enumerate(replica.stages):
            after = gpus[s + 1] if s + 1 < len(gpus) else []
            links = _links(topology, stage, gpus[s], after)
            for i, (gpu, (tp, hop)) in enumerate(zip(gpus[s], links, strict=True)):
                place = [str(r), str(s), str(rank + i)]
                rows.append([*_gpu_cells(topology, gpu), *place, tp, hop])
            rank += len(gpus[s])
    title = "Placement (links: slowest of a rank in its TP group, and to next stage)"
    kept = [c for c in range(len(_HEADERS)) if any(row[c] for row in rows)]
    cells = [[row[c] for c in kept] for row in rows]
    align = "".join(_ALIGN[c] for c in kept)
    return titled(title, fitted([_HEADERS[c] for c in kept], cells, align))


def _gpu_cells(topology: Topology, gpu: Gpu) -> list[Cell]:
    node, index = gpu
    where, shape = topology.nodes[node], topology.shape_of(node)
    rail = shape.rails[index]
    return [
        where.name,
        str(index),
        short(where.uuids[index], 12) if where.uuids else "",
        short(shape.numa[index], 8),
        short(shape.nics[index], 8),
        str(rail) if rail >= 0 else "",
        short(where.domain, 8),
    ]


def _links(
    topology: Topology, stage: Stage, gpus: Sequence[Gpu], after: Sequence[Gpu]
) -> Iterator[tuple[Cell, Cell]]:
    """Per rank: the slowest link of its TP group, and the one to its next rank."""
    attention = len(gpus) - (stage.expert_unit.gpus if stage.expert_unit else 0)
    for i, gpu in enumerate(gpus):
        first, size = 0, stage.shape.tp
        if i >= attention:
            first, size = attention, stage.shape.moe_tp
        start = first + (i - first) // size * size
        group = gpus[start : start + size]
        inside = [topology.link(gpu, other) for other in group if other != gpu]
        onward = [after[i * len(after) // len(gpus)]] if after else []
        hop = [topology.link(gpu, other) for other in onward]
        yield _slowest(topology, inside), _slowest(topology, hop)


def _slowest(topology: Topology, links: Sequence[int]) -> Cell:
    if not links:
        return ""
    slowest = min((topology.classes[c] for c in links), key=lambda x: x.bytes_per_s)
    return short(slowest.name, 14)
