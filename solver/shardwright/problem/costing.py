"""Costs of stages as the compiler needs them: memory exactly, times by clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shardwright.cost.disaggregated import (
    attention_part,
    expert_gpu_bytes,
    expert_part,
)
from shardwright.cost.latencies import Latencies, StageTimes, latencies_of
from shardwright.cost.lengths import RequestMix, ceil_div, ceil_fraction
from shardwright.cost.memory import (
    activation_bytes,
    communication_bytes,
    framework_bytes,
    stage_weight_bytes,
    tokens_of_rank,
)
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
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

    @cached_property
    def latencies(self) -> Latencies:
        """Where iteration times come from."""
        return latencies_of(self.instance, self.mix)

    def clock(self, unit: Unit) -> StageTimes:
        """Iteration times of a unit."""
        ranks = self.ranks(unit.shape)
        return self.latencies.clock(self.gpu(unit), unit.shape, ranks)

    def refusal(self, unit: Unit) -> str | None:
        """Why a unit has no iteration times; None: it has."""
        return self.latencies.refusal(self.gpu(unit), unit.shape)

    def versions(self, units: Iterable[Unit]) -> dict[str, str]:
        """What the times of some units rest on."""
        return self.latencies.versions((self.gpu(u), u.shape) for u in units)

    @cached_property
    def _bytes(self) -> dict[tuple[Any, ...], Any]:
        """Bytes already counted: the grid and the tables ask for the same ones."""
        return {}

    def _attention_ranks(self, shape: StageShape) -> tuple[RankLayer, ...]:
        """One attention GPU's share; of every GPU, unless disaggregated."""
        if not shape.disaggregated:
            return self.ranks(shape)
        if shape not in self._attention:
            self._attention[shape] = tuple(map(attention_part, self.ranks(shape)))
        return self._attention[shape]

    @cached_property
    def _attention(self) -> dict[StageShape, tuple[RankLayer, ...]]:
        return {}

    def kind_bytes(
        self, unit: Unit, batch: int, prompts_only: bool = False
    ) -> list[int]:
        """Weights and KV cache of one layer of every kind with M = ``batch``."""
        key = ("kinds", unit, batch, prompts_only)
        if key not in self._bytes:
            self._bytes[key] = self._kind_bytes(unit, batch, prompts_only)
        return list(self._bytes[key])

    def _kind_bytes(self, unit: Unit, batch: int, prompts_only: bool) -> list[int]:
        precision, mine = self.instance.precision, ceil_div(batch, unit.shape.attn_dp)
        room = self.mix.kv_tokens(mine, prompts_only)
        return [
            rank.weight_bytes(precision) + rank.kv_bytes(precision, room, mine)
            for rank in self._attention_ranks(unit.shape)
        ]

    def role_bytes(self, unit: Unit, role: int, micro_batch: int, chunk: int) -> int:
        """Bytes of a stage outside its layers."""
        key = ("role", unit, role, micro_batch, chunk)
        if key not in self._bytes:
            self._bytes[key] = self._role_bytes(unit, role, micro_batch, chunk)
        return int(self._bytes[key])

    def _role_bytes(self, unit: Unit, role: int, micro_batch: int, chunk: int) -> int:
        model, precision = self.instance.model, self.instance.precision
        mine = ceil_div(micro_batch, unit.shape.attn_dp)
        tokens = tokens_of_rank(unit.shape, mine, chunk)
        logit_rows = mine + ceil_fraction(chunk / self.mix.prompt_work)
        gpu, ranks = self.gpu(unit), self._attention_ranks(unit.shape)
        return (
            stage_weight_bytes(model, precision, unit.shape.tp, role)
            + activation_bytes(model, precision, ranks, tokens, logit_rows, role)
            + communication_bytes(
                model, precision, gpu, unit.shape, ranks, (mine, chunk), role
            )
            + framework_bytes(gpu, self.instance.limits)
        )

    def expert_kind_bytes(self, unit: Unit) -> list[int]:
        """Weights of one layer of every kind on an expert GPU, 0 without any."""
        if not unit.shape.disaggregated:
            return [0] * len(self.instance.model.layer_kinds)
        precision = self.instance.precision
        ranks = map(expert_part, self.ranks(unit.shape))
        return [rank.weight_bytes(precision) for rank in ranks]

    def expert_role_bytes(self, unit: Unit, micro_batch: int, chunk: int) -> int:
        """Bytes of an expert GPU outside its slots; 0 where there is none."""
        if not unit.shape.disaggregated:
            return 0
        i, tokens = self.instance, micro_batch + chunk
        gpu, shape = self.gpu(unit), unit.shape
        parts = expert_gpu_bytes(i.model, i.precision, gpu, i.limits, shape, tokens)
        return parts.activations + parts.communication + parts.framework
