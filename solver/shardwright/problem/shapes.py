"""Which stage shapes an engine allows on the islands of a GPU class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from shardwright.cost.shape import StageShape
from shardwright.problem.context import (
    context_degrees,
    copies_run,
    expert_copies,
    kv_shards,
)
from shardwright.problem.expert_maps import mixtures
from shardwright.problem.limits import EngineSwitches
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.model import ModelSpec, MoeFfn

_PING_PONG = (2, 3)
"""Parts of a micro-batch of a disaggregated stage: two hide experts behind attention,
a third the links too, at the price of smaller matrices."""

_SHARES = 8
"""Attention has a multiple of this part of a disaggregated stage's GPUs."""


@dataclass(frozen=True)
class ShapeRules:
    """Shapes for one instance (docs/cost-model.md section 8, docs/rules.md)."""

    instance: Instance
    switches: EngineSwitches

    @property
    def model(self) -> ModelSpec:
        """The model."""
        return self.instance.model

    def shapes(self, free: list[int], size: int) -> list[StageShape]:
        """Shapes that fit islands with these free GPUs; ``size`` is a whole island."""
        largest = max(free, default=0)
        limit = min(largest, self.instance.limits.max_tensor_parallel or largest)
        degrees = [tp for tp in range(1, limit + 1) if self._heads(tp)]
        experts = mixtures(self.model)
        if not experts:
            found = [
                StageShape.dense(tp, cp, kv_shards(self.instance, cp))
                for cp in context_degrees(self.instance)
                for tp in degrees
                if tp * cp <= largest
            ]
            found += self._across(size, free.count(size))
        else:
            whole = sum(1 for n in free if n == size)
            found = [
                shape
                for gpus, islands in _stage_sizes(largest, size, whole)
                for cp in context_degrees(self.instance)
                for tp in degrees
                if (gpus // islands) % (tp * cp) == 0 and 1 in (cp, islands)
                for shape in self._expert_shapes((tp, cp), gpus, islands, experts)
            ]
            found += self._disaggregated(largest, degrees, experts)
        return [s for s in dict.fromkeys(found) if _as_fixed(s, self.instance.fix)]

    def _across(self, size: int, whole: int) -> Iterator[StageShape]:
        """Tensor parallelism over whole islands of ``size`` GPUs, where asked for."""
        most = self.instance.limits.max_tensor_parallel or 0
        for islands in range(2, min(whole, most // size) + 1):
            tp = islands * size
            if self._heads(tp):
                yield StageShape(tp=tp, moe_tp=tp, islands=islands)

    def _heads(self, tp: int) -> bool:
        """heads_divisible: tp divides heads, and kv_heads or is a multiple of it."""
        if not self.switches.heads_divisible:
            return True
        for kind in self.model.layer_kinds:
            if kind.attention is None:
                continue
            heads, kv_heads = kind.attention.heads, kind.attention.kv_heads
            if heads % tp or (kv_heads % tp and tp % kv_heads):
                return False
        return True

    def _expert_shapes(
        self,
        attention: tuple[int, int],
        gpus: int,
        islands: int,
        experts: list[MoeFfn],
    ) -> Iterator[StageShape]:
        """Ways to lay the experts over the GPUs of a stage, by engine.

        ``attention`` is (tp, cp).
        """
        tp, cp = attention
        engine, attn_dp = self.instance.engine.name, gpus // (tp * cp)
        if engine == "trtllm" and attn_dp not in (1, gpus):
            return
        shards = kv_shards(self.instance, cp)
        for moe_dp in expert_copies(self.instance, cp):
            if 1 not in (moe_dp, islands):
                continue
            for moe_tp, ep in _expert_degrees(gpus, moe_dp):
                if engine == "vllm" and ep not in (1, gpus):
                    continue
                if (gpus // islands) % moe_tp or ep > min(e.experts for e in experts):
                    continue
                if islands > 1 and ep == 1:
                    continue
                degrees = (tp, attn_dp, moe_tp, ep, moe_dp, 0, islands)
                shape = StageShape(*degrees, cp=cp, kv_shards=shards)
                if copies_run(self.instance, shape):
                    for redundant in self._redundant(ep, experts):
                        yield replace(shape, redundant=redundant)

    def _disaggregated(
        self, largest: int, degrees: list[int], experts: list[MoeFfn]
    ) -> Iterator[StageShape]:
        """Pairs of attention and expert GPUs on one island, by ping-pong parts."""
        if not self.switches.disaggregated_experts:
            return
        fewest = min(e.experts for e in experts)
        for attention, apart in self._pairs(largest):
            for tp in (t for t in degrees if attention % t == 0):
                for ep in self._expert_groups(apart, fewest):
                    for parts in self._parts():
                        shape = StageShape(
                            tp,
                            attention // tp,
                            apart // ep,
                            ep,
                            expert_gpus=apart,
                            ping_pong=parts,
                        )
                        for redundant in self._redundant(ep, experts):
                            yield replace(shape, redundant=redundant)

    def _expert_groups(self, apart: int, fewest: int) -> list[int]:
        """Whole experts on every expert GPU, as far as there are enough; ``fix`` may
        ask for any degree."""
        degrees = [n for n in range(1, apart + 1) if apart % n == 0 and n <= fewest]
        fix = self.instance.fix
        return degrees if fix.ep or fix.moe_tp else degrees[-1:]

    def _pairs(self, largest: int) -> Iterator[tuple[int, int]]:
        """(attention, expert) GPUs: totals as colocated, shares in eighths of them."""
        fixed = self.instance.fix.afd
        if fixed is not None:
            if sum(fixed) <= largest:
                yield fixed
            return
        for total in sorted({gpus for gpus, _ in _stage_sizes(largest, largest, 0)}):
            step = max(1, total // _SHARES)
            for attention in range(step, total, step):
                yield attention, total - attention

    def _parts(self) -> tuple[int, ...]:
        fixed = self.instance.fix.ping_pong
        return _PING_PONG if fixed is None else (fixed,)

    def _redundant(self, ep: int, experts: list[MoeFfn]) -> list[int]:
        """Redundant slots to try: with loads to balance, one more slot per GPU."""
        least = _least_redundant(ep, experts)
        if self.instance.workload.expert_loads is not None and ep > 1:
            return [least, least + ep]
        return [least] if self._even_experts() else [0]

    def _even_experts(self) -> bool:
        """experts_divisible: SGLang and TensorRT-LLM want equal slots per GPU."""
        return self.instance.engine.name in ("sglang", "trtllm")


def _expert_degrees(gpus: int, moe_dp: int) -> Iterator[tuple[int, int]]:
    """(moe_tp, ep) of each of ``moe_dp`` copies of the experts."""
    each, rest = divmod(gpus, moe_dp)
    if not rest:
        yield from ((each // ep, ep) for ep in range(1, each + 1) if each % ep == 0)


def _least_redundant(ep: int, experts: list[MoeFfn]) -> int:
    """Fewest redundant slots with which every GPU has equally many."""
    return max(-e.experts % ep for e in experts)


def _stage_sizes(largest: int, size: int, whole: int) -> Iterator[tuple[int, int]]:
    """(GPUs, islands): powers of two and the whole of an island, then whole islands."""
    powers = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    for gpus in sorted({*powers, largest}):
        yield gpus, 1
    for islands in range(2, whole + 1):
        if whole % islands == 0 or islands & (islands - 1) == 0:
            yield islands * size, islands


def _as_fixed(shape: StageShape, fix: Fix) -> bool:
    """Whether a shape has the degrees that ``fix`` names."""
    wanted = {
        "tp": fix.tp,
        "attn_dp": fix.attn_dp,
        "moe_tp": fix.moe_tp,
        "ep": fix.ep,
        "cp": fix.cp,
        "moe_dp": fix.moe_dp,
    }
    wanted["ping_pong"] = fix.ping_pong
    pair = (shape.attention_gpus, shape.expert_gpus)
    if fix.afd is not None and pair != fix.afd:
        return False
    return all(v is None or getattr(shape, n) == v for n, v in wanted.items())
