"""Tables of hops: inside an island, between islands, and between slower ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardwright.cost.times import FloatArray, hop_ns
from shardwright.problem.reach import Reach
from shardwright.problem.types import IntArray
from shardwright.schema.cluster import GpuSpec
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Precision


@dataclass(frozen=True, eq=False)
class Hops:
    """Hops of some points (o), of GPU classes (k).

    ``tokens``: of the balanced iteration and of one with a chunk; ``has_prompts``: 0
    where the second does not exist.
    """

    model: ModelSpec
    precision: Precision
    gpus: Sequence[GpuSpec]
    tokens: tuple[FloatArray, FloatArray]
    has_prompts: IntArray
    reach: Reach | None

    def tables(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Decode inside (o, k) and between (o, k, k), the same of prefill; ns."""
        inside = [
            np.stack([self._inside(gpu, tokens) for gpu in self.gpus], axis=1)
            for tokens in self.tokens
        ]
        decode, prefill = self._between(math.inf)
        return inside[0], decode, inside[1] * self.has_prompts[:, None], prefill

    def slower(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """(decode, prefill) between islands at level 2, 3, ...; ns."""
        speeds = self.reach.speeds[1:] if self.reach is not None else ()
        return tuple(self._between(speed) for speed in speeds)

    def _inside(self, gpu: GpuSpec, tokens: FloatArray) -> IntArray:
        return hop_ns(self.model, self.precision, gpu, gpu, True)(tokens)

    def _between(self, told: float) -> tuple[IntArray, IntArray]:
        """Over links of ``told`` bytes/s, but none above the classes' best islands."""
        n, k = self.has_prompts.size, len(self.gpus)
        found = [np.zeros((n, k, k), np.int64) for _ in range(2)]
        for a, sender in enumerate(self.gpus):
            for b, receiver in enumerate(self.gpus):
                best = math.inf if self.reach is None else self.reach.fastest(a, b)
                ends = (sender, receiver, False, min(told, best))
                hop = hop_ns(self.model, self.precision, *ends)
                for table, tokens in zip(found, self.tokens, strict=True):
                    table[:, a, b] = hop(tokens)
        return found[0], found[1] * self.has_prompts[:, None, None]
