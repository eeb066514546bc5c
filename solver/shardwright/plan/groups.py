"""Rows that say the same are shown once: equal replicas, runs of equal stages."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from shardwright.schema.plan import Plan, Replica, Stage


@dataclass(frozen=True)
class ReplicaGroup:
    """Replicas that differ in nothing but their GPUs."""

    indices: tuple[int, ...]
    replica: Replica

    @property
    def label(self) -> str:
        """Indices in short: 0-3, 5."""
        return ranges(self.indices)


def replica_groups(plan: Plan) -> list[ReplicaGroup]:
    """Groups in the order of their first replica."""
    found: dict[Hashable, list[int]] = {}
    replicas = plan.replicas()
    for index, replica in enumerate(replicas):
        found.setdefault(_likeness(replica), []).append(index)
    return [ReplicaGroup(tuple(i), replicas[i[0]]) for i in found.values()]


def _likeness(replica: Replica) -> Hashable:
    stages = tuple(
        (
            s.layers,
            s.shape,
            s.expert_slots,
            s.gpu_type,
            s.memory_bytes,
            s.expert_unit,
            s.decode_time_ns,
        )
        for s in replica.stages
    )
    return replica.operating_point, replica.latency, stages


def ranges(indices: Iterable[int]) -> str:
    """Ascending indices in short: 0-3, 5."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs)


def merged(
    rows: Iterable[tuple[int, Sequence[str]]],
) -> list[tuple[str, Sequence[str]]]:
    """Rows of equal cells gathered under the range of their indices."""
    found: dict[tuple[str, ...], list[int]] = {}
    for index, cells in rows:
        found.setdefault(tuple(cells), []).append(index)
    return [(ranges(indices), cells) for cells, indices in found.items()]


def has_experts(stages: Iterable[Stage]) -> bool:
    """Whether stages serve a mixture of experts."""
    return any(stage.expert_slots for stage in stages)


def grouped(stages: Iterable[Stage]) -> bool:
    """Whether some ranks share sequences: context parallelism."""
    return any(stage.shape.cp > 1 for stage in stages)


def shape_words(stages: Sequence[Stage]) -> str:
    """Shapes in short: TP2, TP2+4 where stages differ, TP1 DP16 EP16 with experts.

    DP is that of attention; CP, MoE-TP and MoE-DP are named where they are not 1.
    """
    names = {"tp": "TP"}
    if grouped(stages):
        names["cp"] = "CP"
    if has_experts(stages):
        names |= {"attn_dp": "DP", "ep": "EP"}
        inner = {"moe_tp": "MoE-TP", "moe_dp": "MoE-DP"}
        shapes = [stage.shape for stage in stages]
        names |= {
            f: n for f, n in inner.items() if max(getattr(s, f) for s in shapes) > 1
        }
    words = " ".join(name + _joined(stages, field) for field, name in names.items())
    return f"{words}{_apart(stages)}"


def _apart(stages: Sequence[Stage]) -> str:
    """AFD5+3x2: attention and expert GPUs of a stage, and its ping-pong parts."""
    found = dict.fromkeys(
        f"AFD{len(s.gpus) - s.expert_unit.gpus}+{s.expert_unit.gpus}"
        f"x{s.expert_unit.ping_pong}"
        for s in stages
        if s.expert_unit
    )
    return f" {'/'.join(found)}" if found else ""


def _joined(stages: Sequence[Stage], field: str) -> str:
    values = [getattr(stage.shape, field) for stage in stages]
    return str(values[0]) if len(set(values)) == 1 else "+".join(map(str, values))


def degrees(replica: Replica) -> str:
    """Shape and stages of a replica: TP2 PP4, or TP1 DP16 EP16 PP1."""
    return f"{shape_words(replica.stages)} PP{len(replica.stages)}"


def split(replica: Replica) -> str:
    """Layers per stage: 21+20+20+19, or 4 x 20."""
    counts = [end - start for start, end in (s.layers for s in replica.stages)]
    if len(counts) > 1 and len(set(counts)) == 1:
        return f"{len(counts)} x {counts[0]}"
    return "+".join(map(str, counts))


def replica_words(replica: Replica) -> str:
    """GPUs of a replica by type: 8 H100, or 4 H100 + 2 L4."""
    counts: dict[str, int] = {}
    for stage in replica.stages:
        counts[stage.gpu_type] = counts.get(stage.gpu_type, 0) + len(stage.gpus)
    words = " + ".join(f"{n} {name}" for name, n in counts.items())
    return words if replica.role == "mixed" else f"{replica.role} on {words}"
