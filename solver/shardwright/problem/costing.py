"""Costs of stages as the compiler needs them: memory exactly, times by clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shardwright.cost.disaggregated import (
    attention_part,
    expert_gpu_bytes,
    expert_part,
)
from shardwright.cost.latencies import Latencies, StageTimes, latencies_of
from shardwright.cost.lengths import RequestMix, ceil_fraction
from shardwright.cost.memory import (
    ROLES,
    activation_bytes,
    communication_bytes,
    framework_bytes,
    stage_weight_bytes,
)
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.problem.expert_maps import ExpertMaps
from shardwright.problem.types import IntArray, Unit
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

    @cached_property
    def _known(self) -> dict[tuple[Any, ...], Any]:
        """What was computed before: the grid and the tables ask for the same."""
        return {}

    def _room(self, mine: int, prompts_only: bool) -> int:
        key = ("room", mine, prompts_only)
        if key not in self._known:
            self._known[key] = self.mix.kv_tokens(mine, prompts_only)
        return int(self._known[key])

    def kind_bytes(
        self, unit: Unit, batches: IntArray, prompts_only: bool = False
    ) -> IntArray:
        """Weights and KV cache of one layer of every kind with M of ``batches``.

        Shape (batches, kinds).
        """
        precision = self.instance.precision
        mine, where = np.unique(-(-batches // unit.shape.attn_dp), return_inverse=True)
        room = np.array([self._room(m, prompts_only) for m in mine.tolist()], np.int64)
        found = []
        for rank in self._attention_ranks(unit.shape):
            kept, attention = room, rank.attention
            if attention is not None and attention.window_tokens is not None:
                kept = np.minimum(room, mine * attention.window_tokens)
            kept = -(-kept // rank.kv_shards)
            each = rank.kv_bytes_per_token(precision)
            found.append(rank.weight_bytes(precision) + kept * each)
        return np.stack(found, axis=1)[where]

    def _line(self, unit: Unit, role: int) -> tuple[int, int, int, int]:
        """Bytes outside a stage's layers: fixed, per token of a rank, per row of
        logits, per token of a chunk.

        They are affine in all of them, so four values say all.
        """
        key = ("line", unit, role)
        if key not in self._known:
            at = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
            fixed, *each = (self._role_bytes(unit, role, *one) for one in at)
            self._known[key] = fixed, *(more - fixed for more in each)
        line: tuple[int, int, int, int] = self._known[key]
        return line

    def role_bytes(
        self, unit: Unit, micro_batches: IntArray, chunks: IntArray
    ) -> IntArray:
        """Bytes of a stage outside its layers; shape (micro_batches, roles)."""
        mine = -(-micro_batches // unit.shape.attn_dp)
        sizes, where = np.unique(chunks, return_inverse=True)
        work = self.mix.prompt_work
        ends = np.array([ceil_fraction(c / work) for c in sizes.tolist()], np.int64)
        tokens, rows = mine - (-chunks // unit.shape.cp), mine + ends[where]
        lines = [self._line(unit, role) for role in range(len(ROLES))]
        found = [f + t * tokens + r * rows + c * chunks for f, t, r, c in lines]
        return np.stack(found, axis=1)

    def _role_bytes(
        self, unit: Unit, role: int, tokens: int, logit_rows: int, chunk: int
    ) -> int:
        model, precision = self.instance.model, self.instance.precision
        gpu, ranks = self.gpu(unit), self._attention_ranks(unit.shape)
        return (
            stage_weight_bytes(model, precision, unit.shape.tp, role)
            + activation_bytes(model, precision, ranks, tokens, logit_rows, role)
            + communication_bytes(
                model, precision, gpu, unit.shape, ranks, (tokens, chunk), role
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

    def expert_role_bytes(self, unit: Unit, tokens: IntArray) -> IntArray:
        """Bytes of an expert GPU outside its slots, by the tokens of an iteration.

        0 where there is no such GPU.
        """
        if not unit.shape.disaggregated:
            return np.zeros_like(tokens)
        i, gpu = self.instance, self.gpu(unit)
        sizes, where = np.unique(tokens, return_inverse=True)
        found = []
        for n in sizes.tolist():
            parts = expert_gpu_bytes(i.model, i.precision, gpu, i.limits, unit.shape, n)
            found.append(parts.activations + parts.communication + parts.framework)
        return np.array(found, np.int64)[where]
