"""Memory: parts of every stage, KV room, and what other shapes would need."""

from __future__ import annotations

from shardwright.plan.anatomy import Anatomy
from shardwright.plan.groups import ReplicaGroup, grouped, has_experts, merged
from shardwright.plan.kv import kv_room
from shardwright.plan.strategies import Strategy, strategies
from shardwright.plan.tables.text import (
    Cell,
    amount,
    figures,
    gb,
    grid,
    number,
    percent,
    titled,
)
from shardwright.plan.view import PlanView
from shardwright.schema.plan import MemoryParts, Stage

_PARTS = ("weights", "kv_cache", "activations", "communication", "framework")
_HEADERS = (
    "repl\nica",
    "\nstage",
    "\nweights",
    "\nKV cache",
    "\nactivations",
    "\ncommunication",
    "\nframework",
    "\ntotal",
    "of\nGPU",
)


def memory_table(view: PlanView) -> str:
    """GB per GPU and share of the usable memory, for every distinct stage."""
    rows = [row for group in view.groups for row in _rows(view.anatomy, group)]
    fraction = view.instance.limits.memory_fraction
    caps = {
        stage.gpu_type: view.anatomy.usable_bytes(stage)
        for group in view.groups
        for stage in group.replica.stages
    }
    usable = ", ".join(f"{gb(cap)} GB on {name}" for name, cap in caps.items())
    return titled(
        f"Memory per GPU: GB and share of the usable {usable} "
        f"({percent(fraction, 0)} of memory)",
        grid(_HEADERS, rows, "llrrrrrrr"),
        _apart_line(view),
        _kv_lines(view),
    )


def _apart_line(view: PlanView) -> str:
    stages = [s for group in view.groups for s in group.replica.stages]
    if not any(stage.expert_unit for stage in stages):
        return ""
    return "A: each attention GPU of the stage, E: each expert GPU (disaggregated)."


def _rows(anatomy: Anatomy, group: ReplicaGroup) -> list[list[Cell]]:
    stages = list(enumerate(group.replica.stages))
    found = []
    for role in dict.fromkeys(r for _, s in stages for r, _, _ in s.memory_by_role()):
        rows = merged(
            (i, _cells(anatomy, stage, memory))
            for i, stage in stages
            for name, _, memory in stage.memory_by_role()
            if name == role
        )
        mark = "" if role == "mixed" else f" {role[0].upper()}"
        found += [[group.label, f"{label}{mark}", *cells] for label, cells in rows]
    return found


def _cells(anatomy: Anatomy, stage: Stage, memory: MemoryParts) -> list[Cell]:
    usable = anatomy.usable_bytes(stage)
    sizes = [getattr(memory, part) for part in _PARTS] + [memory.total()]
    cells = [f"{gb(size)} {percent(size / usable):>5}" for size in sizes]
    return [*cells, percent(memory.total() / anatomy.gpu(stage).memory_bytes)]


def _kv_lines(view: PlanView) -> str:
    lines = []
    for group in view.groups:
        room = kv_room(view.anatomy, group.replica)
        capacity = room.tokens_capacity
        fits = "" if capacity is None else f"; {number(capacity)} tokens would fit"
        lines.append(
            f"KV cache, {'each of replicas' if len(group.indices) > 1 else 'replica'} "
            f"{group.label}: room for "
            f"{amount(room.tokens_reserved, 'token')}{fits}"
        )
    return "\n".join(lines)


def kv_table(view: PlanView) -> str:
    """KV cache: per token, reserved, and what would fit."""
    rows = []
    for group in view.groups:
        room, point = kv_room(view.anatomy, group.replica), group.replica
        capacity = room.tokens_capacity
        rows.append(
            [
                group.label,
                str(point.operating_point.sequences),
                figures(room.bytes_per_token / 1000),
                figures(room.bytes_per_token_gpu / 1000),
                number(room.tokens_reserved),
                "-" if capacity is None else number(capacity),
                gb(room.cache_bytes),
            ]
        )
    headers = [
        "replica",
        "sequences",
        "kB per\ntoken",
        "kB per token\nand GPU",
        "tokens\nreserved",
        "tokens\nthat fit",
        "GB in all",
    ]
    rule = view.instance.workload.kv_reserve
    return titled(
        f"KV cache (reserve: {rule}; kB is 1e3 bytes)", grid(headers, rows, "lrrrrrr")
    )


def strategies_table(view: PlanView) -> str:
    """Memory of every equal shape on the GPUs of the first replica."""
    first = view.groups[0].replica
    point = first.operating_point
    degrees = {"TP": "tp"}
    if grouped(first.stages):
        degrees["CP"] = "cp"
    if has_experts(first.stages):
        degrees |= {"DP": "attn_dp", "EP": "ep", "MoE-\nTP": "moe_tp"}
    found = strategies(view.anatomy, first)
    if has_experts(first.stages) and any(s.shape.moe_dp > 1 for s in found):
        degrees["MoE-\nDP"] = "moe_dp"
    rows = [_strategy_cells(s, list(degrees.values())) for s in found]
    headers = [
        "type",
        *degrees,
        "PP",
        "GPUs",
        "weights\nGB",
        "total\nGB",
        "usable\nGB",
        "\nfits",
        "largest\nbatch",
    ]
    return titled(
        f"Memory by strategy, fullest GPU, {amount(point.sequences, 'sequence')}, "
        f"prefill chunk {number(point.prefill_chunk_tokens)}",
        grid(headers, rows, f"l{'r' * len(degrees)}rrrrrlr"),
    )


def _strategy_cells(s: Strategy, degrees: list[str]) -> list[Cell]:
    return [
        s.gpu_type,
        *(str(getattr(s.shape, field)) for field in degrees),
        str(s.pp),
        str(s.shape.gpus * s.pp),
        gb(s.peak.weights),
        gb(s.peak.total()),
        gb(s.usable_bytes),
        "yes" if s.fits else "no",
        number(s.largest_batch) if s.largest_batch else "none",
    ]
