"""Costs of stages as the compiler needs them: memory exactly, times by clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from shardwright.cost.lengths import RequestMix, ceil_div, ceil_fraction
from shardwright.cost.memory import (
    activation_bytes,
    communication_bytes,
    framework_bytes,
    stage_weight_bytes,
)
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.times import StageClock
from shardwright.problem.expert_maps import ExpertMaps
from shardwright.problem.types import Unit
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.instance import Instance


@dataclass(frozen=True)
class StageCosts:
    """Memory and times of the stage units of one instance."""

    instance: Instance
    mix: RequestMix
    class_names: tuple[str, ...]
    maps: ExpertMaps

    @cached_property
    def _ranks(self) -> dict[StageShape, tuple[RankLayer, ...]]:
        return {}

    def ranks(self, shape: StageShape) -> tuple[RankLayer, ...]:
        """One GPU's share of every layer kind."""
        if shape not in self._ranks:
            model, precision = self.instance.model, self.instance.precision
            balance = self.maps.balance(shape)
            self._ranks[shape] = tuple(
                RankLayer.of(model, kind, shape, precision, balance)
                for kind in model.layer_kinds
            )
        return self._ranks[shape]

    def gpu(self, unit: Unit) -> GpuSpec:
        """GPU type of a unit."""
        return self.instance.cluster.gpu_types[self.class_names[unit.gpu_class]]

    def clock(self, unit: Unit) -> StageClock:
        """Iteration times of a unit."""
        return StageClock(
            self.instance.model,
            self.instance.precision,
            self.mix,
            self.gpu(unit),
            unit.shape,
        )

    def kind_bytes(self, unit: Unit, batch: int) -> list[int]:
        """Weights and KV cache of one layer of every kind with M = ``batch``."""
        precision, mine = self.instance.precision, ceil_div(batch, unit.shape.attn_dp)
        room = self.mix.kv_tokens(mine)
        return [
            rank.weight_bytes(precision) + rank.kv_bytes(precision, room, mine)
            for rank in self.ranks(unit.shape)
        ]

    def role_bytes(self, unit: Unit, role: int, micro_batch: int, chunk: int) -> int:
        """Bytes of a stage outside its layers."""
        model, precision = self.instance.model, self.instance.precision
        mine = ceil_div(micro_batch, unit.shape.attn_dp)
        tokens = mine + chunk
        logit_rows = mine + ceil_fraction(chunk / self.mix.prompt_work)
        gpu, ranks = self.gpu(unit), self.ranks(unit.shape)
        return (
            stage_weight_bytes(model, precision, unit.shape.tp, role)
            + activation_bytes(model, precision, ranks, tokens, logit_rows, role)
            + communication_bytes(model, precision, gpu, unit.shape, tokens, role)
            + framework_bytes(gpu, self.instance.limits)
        )
