"""Bytes of weights that GPUs must load to go from one plan to another.

A rank holds an interval of every layer of its stage: [r/t, (r+1)/t) of what is divided
over t ranks. What it already holds of the interval needs no loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from shardwright.plan.parts import MemoryAnatomy
from shardwright.resilience.survivors import GpuName
from shardwright.schema.instance import Instance
from shardwright.schema.plan import GpuRank, Plan, Replica, Stage

Held = dict[int, tuple[Fraction, Fraction]]
"""Layer -> interval of its weights."""


@dataclass(frozen=True, eq=False)
class Weights:
    """What every GPU of a plan holds, and how large layers are."""

    instance: Instance
    plan: Plan

    @cached_property
    def layer_bytes(self) -> list[int]:
        """Bytes of every layer, each value once."""
        from shardwright.cost.shape import StageShape

        anatomy = MemoryAnatomy(self.instance)
        ranks = anatomy.ranks(StageShape.dense(1))
        kinds = self.instance.model.kind_indices()
        return [ranks[k].weight_bytes(self.instance.precision) for k in kinds]

    @cached_property
    def held(self) -> dict[GpuName, Held]:
        """Intervals of every GPU with a rank."""
        found: dict[GpuName, Held] = {}
        for replica in self.plan.replicas():
            for stage in replica.stages:
                for place, gpu in enumerate(stage.gpus):
                    found[gpu.node, gpu.gpu] = stage_share(stage, place)
        return found


def stage_share(stage: Stage, place: int) -> Held:
    """What the GPU at a place of a stage holds.

    Attention data parallelism and context parallelism copy: ranks of one
    tensor-parallel index hold the same. Experts are cut along the whole stage, or
    along each of their copies.
    """
    whole = len(stage.gpus) // stage.shape.moe_dp
    parts = whole if stage.expert_slots else stage.shape.tp
    index = place % parts
    interval = (Fraction(index, parts), Fraction(index + 1, parts))
    return dict.fromkeys(range(*stage.layers), interval)


def bytes_to_load(weights: Weights, wanted: Held, held: Held) -> int:
    """Bytes of ``wanted`` that are not in ``held``."""
    total = Fraction(0)
    for layer, (low, high) in wanted.items():
        have = held.get(layer)
        kept = Fraction(0)
        if have is not None:
            kept = max(Fraction(0), min(high, have[1]) - max(low, have[0]))
        total += (high - low - kept) * weights.layer_bytes[layer]
    return int(total)


def relabelled(old: Weights, new: Plan, islands: Sequence[Sequence[GpuName]]) -> Plan:
    """The new plan with its GPUs exchanged inside each island to load the least.

    Exact for every island by an assignment of its GPUs; islands keep their replicas.
    """
    wanted = {
        (gpu.node, gpu.gpu): stage_share(stage, place)
        for replica in new.replicas()
        for stage in replica.stages
        for place, gpu in enumerate(stage.gpus)
    }
    renamed: dict[GpuName, GpuName] = {}
    for island in islands:
        renamed |= _assigned(old, wanted, list(island))
    return _renamed(new, renamed)


def _assigned(
    old: Weights, wanted: dict[GpuName, Held], island: list[GpuName]
) -> dict[GpuName, GpuName]:
    """New name of every GPU of an island: least bytes to load in all."""
    if not any(gpu in wanted for gpu in island):
        return {}
    from ortools.graph.python.linear_sum_assignment import SimpleLinearSumAssignment

    assignment = SimpleLinearSumAssignment()
    for i, task in enumerate(island):
        for j, gpu in enumerate(island):
            need = wanted.get(task)
            cost = bytes_to_load(old, need, old.held.get(gpu, {})) if need else 0
            assignment.add_arc_with_cost(i, j, 2 * cost + (i != j))
    assignment.solve()
    return {task: island[assignment.right_mate(i)] for i, task in enumerate(island)}


def _renamed(plan: Plan, names: dict[GpuName, GpuName]) -> Plan:
    def gpu(rank: GpuRank) -> GpuRank:
        node, index = names.get((rank.node, rank.gpu), (rank.node, rank.gpu))
        return rank.model_copy(update={"node": node, "gpu": index})

    def stage(one: Stage) -> Stage:
        return one.model_copy(update={"gpus": tuple(map(gpu, one.gpus))})

    def replica(one: Replica) -> Replica:
        return one.model_copy(update={"stages": tuple(map(stage, one.stages))})

    pools = tuple(
        pool.model_copy(update={"replicas": tuple(map(replica, pool.replicas))})
        for pool in plan.pools
    )
    return plan.model_copy(update={"pools": pools})


def moved_bytes(old: Weights, new: Plan) -> int:
    """Bytes that all GPUs of the new plan must load."""
    return sum(
        bytes_to_load(
            old, stage_share(stage, place), old.held.get((gpu.node, gpu.gpu), {})
        )
        for replica in new.replicas()
        for stage in replica.stages
        for place, gpu in enumerate(stage.gpus)
    )
