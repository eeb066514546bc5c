"""GPUs that a plan leaves idle, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from shardwright.plan.anatomy import gpu_count
from shardwright.plan.balance import all_stages
from shardwright.problem import Problem, mixtures, stage_roles
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

GpuName = tuple[str, int]
"""Node and index."""


@dataclass(frozen=True)
class IdleGpu:
    """A GPU without a rank."""

    node: str
    gpu: int
    gpu_type: str
    reason: str


def idle_gpus(
    instance: Instance, plan: Plan, reasons: Mapping[GpuName, str] | None = None
) -> list[IdleGpu]:
    """Every GPU that serves no stage, in the order of the file."""
    given = reasons or {}
    return [
        IdleGpu(node, gpu, gpu_type, withheld or given.get((node, gpu), "not used"))
        for node, gpu, gpu_type, withheld in _unused(instance, plan)
    ]


def _unused(instance: Instance, plan: Plan) -> Iterator[tuple[str, int, str, str]]:
    used = {(g.node, g.gpu) for stage in all_stages(plan) for g in stage.gpus}
    for group in instance.cluster.nodes:
        withheld = dict.fromkeys(group.reserved, "reserved")
        withheld |= dict.fromkeys(group.failed, "failed")
        for node in group.node_names():
            for gpu in range(group.gpus):
                if (node, gpu) not in used:
                    yield node, gpu, group.gpu, withheld.get(gpu, "")


def why_idle(
    instance: Instance, problem: Problem, plan: Plan, *, proven: bool
) -> dict[GpuName, str]:
    """A reason for every available GPU that the plan does not use.

    ``proven`` says whether the first goal's bound equals its value. Spare GPUs are
    counted off from the end of the list.
    """
    free = [(n, g, t) for n, g, t, withheld in _unused(instance, plan) if not withheld]
    spare = instance.limits.spare_gpus
    kept = {(n, g) for n, g, _ in free[len(free) - spare :]} if spare else set()
    why = _Reasons(instance, problem, plan, proven)
    left: dict[str, int] = {}
    for node, gpu, gpu_type in free:
        left[gpu_type] = left.get(gpu_type, 0) + ((node, gpu) not in kept)
    return {
        (n, g): f"spare (spare_gpus: {spare})" if (n, g) in kept else why(t, left[t])
        for n, g, t in free
    }


@dataclass(frozen=True)
class _Reasons:
    instance: Instance
    problem: Problem
    plan: Plan
    proven: bool

    def __call__(self, gpu_type: str, left: int) -> str:
        used = gpu_count(all_stages(self.plan))
        limit = self.instance.limits.max_gpus
        if limit is not None and used >= limit:
            return f"max_gpus: {limit} is reached"
        goal = self.instance.goals()[0]
        if goal in ("gpus", "cost"):
            words = "proven" if self.proven else "so far"
            least = "the fewest" if goal == "gpus" else "at the lowest cost"
            return f"objective {goal} comes first: {used} GPUs are {least} ({words})"
        return self._no_better(gpu_type, left)

    def _no_better(self, gpu_type: str, left: int) -> str:
        allowed = self._tp_words(gpu_type)
        least = smallest_replica(self.problem, gpu_type)
        alone = f"{left} {gpu_type} left"
        if least is None:
            alone += f", no replica fits {gpu_type} alone"
        else:
            gpus, stages = least
            stage = f"TP{gpus}" if self._dense else f"stages of {gpus}"
            shape = f"{stage} PP{stages}, {gpus * stages} GPUs"
            if least[0] * least[1] > left:
                alone += f", the smallest replica is {shape}"
            else:
                alone += f", a replica of {shape}, would fit in memory"
        if self.proven:
            return f"no design uses it better (proven): {alone}; {allowed}"
        return f"no better use found so far: {alone}; {allowed}"

    @property
    def _dense(self) -> bool:
        grouped = any(unit.shape.cp > 1 for unit in self.problem.units)
        return not mixtures(self.instance.model) and not grouped

    def _tp_words(self, gpu_type: str) -> str:
        index = [k.name for k in self.problem.classes].index(gpu_type)
        degrees = sorted(
            {u.shape.tp for u in self.problem.units if u.gpu_class == index}
        )
        return f"tp may be {', '.join(str(tp) for tp in degrees)}"


def smallest_replica(problem: Problem, gpu_type: str) -> tuple[int, int] | None:
    """(GPUs of a stage, stages) of the smallest replica that holds the model.

    Of one GPU type, at some point.
    """
    shapes = [
        (unit.gpus * stages, stages, index)
        for index, unit in enumerate(problem.units)
        if problem.classes[unit.gpu_class].name == gpu_type
        for stages in range(1, problem.max_stages + 1)
    ]
    for gpus, stages, unit in sorted(shapes):
        if any(
            _fills(problem, unit, stages, point)
            for point in range(len(problem.points))
            if stages in problem.stage_counts(point)
        ):
            return gpus // stages, stages
    return None


def _fills(problem: Problem, unit: int, stages: int, point: int) -> bool:
    """Whether stages that take all layers they can hold cover the model."""
    capacity = problem.classes[problem.units[unit].gpu_class].capacity_bytes
    rows = problem.memory_rows
    layer = np.array([row.layer[point, unit] for row in rows])
    role = np.array([row.role[point, unit] for row in rows])
    at = 0
    for index in stage_roles(stages):
        left = capacity - role[:, index]
        if (left < 0).any():
            return False
        while at < problem.layers:
            more = layer[:, problem.layer_kinds[at]]
            if (more > left).any():
                break
            left, at = left - more, at + 1
    return at == problem.layers
