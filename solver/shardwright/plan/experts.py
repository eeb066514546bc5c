"""Experts of a plan: ranks of a GPU within its stage, and what each of them holds."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.problem import mixtures
from shardwright.schema.instance import Instance
from shardwright.schema.plan import ExpertMap, Plan, Stage

_FILLING = ("sglang", "trtllm")
"""Engines that fill every slot with a copy; others leave slots empty."""


def expert_count(instance: Instance) -> int:
    """Experts of the layers with most of them; 0 for a dense model."""
    return max((e.experts for e in mixtures(instance.model)), default=0)


def redundant_slots(instance: Instance, stage: Stage) -> int:
    """Slots of the stage that hold second copies (docs/rules.md)."""
    experts, ep = expert_count(instance), stage.shape.ep
    least = -(-experts // ep)
    if stage.expert_slots == least and instance.engine.name not in _FILLING:
        return 0
    return max(0, stage.expert_slots * ep - experts)


@dataclass(frozen=True)
class Place:
    """Ranks of one GPU of a stage: tp fastest in attention, then cp; moe_tp in experts.

    None where a disaggregated stage's GPU has no part in attention or in experts.
    """

    tp: int | None
    cp: int | None
    attn_dp: int | None
    ep: int | None

    @classmethod
    def of(cls, stage: Stage, index: int) -> Place:
        """The GPU at ``index`` of the stage."""
        shape, apart = stage.shape, stage.expert_unit
        if apart is not None:
            after = index - (len(stage.gpus) - apart.gpus)
            if after >= 0:
                return cls(None, None, None, after // shape.moe_tp % shape.ep)
            return cls(index % shape.tp, 0, index // shape.tp, None)
        ep = index // shape.moe_tp % shape.ep
        group, tp = divmod(index, shape.tp)
        return cls(tp, group % shape.cp, group // shape.cp, ep)


def map_of(plan: Plan, stage: Stage) -> ExpertMap | None:
    """The solved map of a stage; None where experts lie in order."""
    for found in plan.expert_map or ():
        if (found.ep, found.slots_per_gpu) == (stage.shape.ep, stage.expert_slots):
            return found
    return None


def experts_in_order(instance: Instance, stage: Stage, ep_rank: int) -> list[int]:
    """Experts of every layer on one expert rank when they lie in order.

    Engines that fill all slots go round again; the others give the first ranks one
    expert more.
    """
    experts, ep = expert_count(instance), stage.shape.ep
    if redundant_slots(instance, stage):
        first = ep_rank * stage.expert_slots
        return sorted((first + i) % experts for i in range(stage.expert_slots))
    base, rest = divmod(experts, ep)
    first = ep_rank * base + min(ep_rank, rest)
    return list(range(first, first + base + (ep_rank < rest)))


def balance(instance: Instance, plan: Plan, stage: Stage) -> float:
    """Busiest GPU's tokens over the mean GPU's: of the map, or of uniform routing."""
    found = map_of(plan, stage)
    if found is not None:
        return found.balance
    experts = expert_count(instance)
    filled = experts + redundant_slots(instance, stage)
    return stage.expert_slots * stage.shape.ep / filled
