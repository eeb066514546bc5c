"""Expert maps for the loads of a workload: one per (ep, redundant slots)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from shardwright.cost.shape import StageShape
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.model import ModelSpec, MoeFfn

if TYPE_CHECKING:
    from shardwright.experts import ExpertPlan


def mixtures(model: ModelSpec) -> list[MoeFfn]:
    """The mixtures of experts among the layer kinds in use."""
    used = set(model.layers)
    return [
        k.ffn for k in model.layer_kinds if k.name in used and isinstance(k.ffn, MoeFfn)
    ]


def expert_layers(model: ModelSpec) -> int:
    """Number of layers with experts."""
    mixed = {k.name for k in model.layer_kinds if isinstance(k.ffn, MoeFfn)}
    return sum(name in mixed for name in model.layers)


@dataclass(frozen=True)
class ExpertMaps:
    """Maps of one instance, found when first asked for."""

    instance: Instance

    @cached_property
    def _plans(self) -> dict[tuple[int, int], ExpertPlan]:
        return {}

    @cached_property
    def _tokens(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
        loads, model = self.instance.workload.expert_loads, self.instance.model
        if loads is None:
            return None
        table = np.array(loads.tokens, dtype=np.float64)
        experts = sorted({e.experts for e in mixtures(model)})
        wanted = (expert_layers(model), experts[0] if len(experts) == 1 else -1)
        if table.shape != wanted:
            found = f"{table.shape[0]} rows of {table.shape[1]} experts"
            allowed = f"the model has {wanted[0]} layers of {experts} experts"
            error = FieldError("workload.expert_loads", found, allowed)
            raise InvalidInstance(self.instance.name, [error])
        return table

    def plan(self, shape: StageShape) -> ExpertPlan | None:
        """The map for a shape; None without loads or where slots are not equal."""
        if self._tokens is None or shape.ep == 1:
            return None
        slots = self._tokens.shape[1] + shape.redundant
        if slots % shape.ep:
            return None
        key = (shape.ep, shape.redundant)
        if key not in self._plans:
            from shardwright.experts import FAST, plan_experts

            self._plans[key] = plan_experts(
                self._tokens, gpus=shape.ep, slots=slots, effort=FAST
            )
        return self._plans[key]

    def balance(self, shape: StageShape) -> float | None:
        """Mean over the layers of the busiest GPU over the mean; None if unknown."""
        found = self.plan(shape)
        if found is None:
            return None
        pairs = zip(found.max_load, found.mean_load, strict=True)
        return float(np.mean([top / mean for top, mean in pairs]))
