"""Collectives by link class: latency of the rank count plus volume over the link."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.rank import ExpertRank
from shardwright.cost.shape import StageShape
from shardwright.schema.cluster import GpuSpec

FloatArray = NDArray[np.float64]


def link_speed(gpu: GpuSpec) -> float:
    """Sustained bytes/s inside an island, per direction."""
    return gpu.link_gbyte_per_s * 1e9 * gpu.calibration.link_efficiency


def network_speed(gpu: GpuSpec) -> float:
    """Sustained bytes/s between islands: data leaves over the GPU's own links."""
    network = gpu.network_gbyte_per_s * 1e9 * gpu.calibration.network_efficiency
    return min(network, link_speed(gpu))


@dataclass(frozen=True)
class Links:
    """Collectives of a stage of one GPU type in one shape. Bytes to seconds."""

    gpu: GpuSpec
    shape: StageShape

    def latency(self, ranks: int) -> float:
        """Start-up time of a collective inside an island, seconds."""
        table = self.gpu.calibration.allreduce_latency_us
        at_least = [n for n in table if n >= ranks]
        return table[min(at_least) if at_least else max(table)] * 1e-6

    @cached_property
    def _inside(self) -> float:
        return link_speed(self.gpu)

    def all_reduce(self, message_bytes: FloatArray, ranks: int) -> FloatArray:
        """Ring all-reduce inside an island; 0 for one rank."""
        if ranks == 1:
            return np.zeros_like(message_bytes)
        volume = 2 * (ranks - 1) / ranks * message_bytes
        return self.latency(ranks) + volume / self._inside

    def all_gather(self, gathered_bytes: FloatArray, ranks: int) -> FloatArray:
        """All-gather (or reduce-scatter) inside an island; 0 for one rank."""
        if ranks == 1:
            return np.zeros_like(gathered_bytes)
        volume = (ranks - 1) / ranks * gathered_bytes
        return self.latency(ranks) + volume / self._inside

    def exchange(
        self, tokens: FloatArray, token_bytes: int, experts: ExpertRank
    ) -> FloatArray:
        """How tokens of attn_dp ranks reach the experts and return."""
        shape = self.shape
        if shape.ep == 1:
            return 2 * self.all_gather(tokens * token_bytes, shape.attn_dp)
        ways = 2 * self.one_way(tokens / shape.gpus * token_bytes, experts)
        partial = tokens / shape.ep * token_bytes
        return ways + self.all_reduce(partial, shape.moe_tp)

    def one_way(self, sent_bytes: FloatArray, experts: ExpertRank) -> FloatArray:
        """Dispatch or combine of what one GPU sends per expert of a token."""
        shape, islands = self.shape, self.shape.islands
        inside = sent_bytes * self.copies_inside(experts) / self._inside
        latency = self.latency(min(shape.ep, shape.gpus_per_island))
        if islands == 1:
            return latency + inside
        across = sent_bytes * self.copies_across(experts) / network_speed(self.gpu)
        network_latency = self.gpu.calibration.network_latency_us * 1e-6
        return latency + network_latency + np.maximum(inside, across)

    def copies_inside(self, experts: ExpertRank) -> float:
        """Copies of a token that leave its GPU: one per expert elsewhere."""
        return experts.top_k * (1 - 1 / self.shape.ep)

    def copies_across(self, experts: ExpertRank) -> float:
        """Copies that leave the island: one per other island with an expert of it."""
        islands = self.shape.islands
        met = islands * (1 - (1 - 1 / islands) ** experts.top_k)
        return min(experts.reachable_islands, met) * (1 - 1 / islands)
