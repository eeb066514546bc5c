"""Collectives by link class: latency of the rank count plus volume over the link."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shardwright.cost import terms
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


def start_up_s(gpu: GpuSpec, ranks: int) -> float:
    """Start-up of a collective: the smallest listed rank count that is enough."""
    table = gpu.calibration.allreduce_latency_us
    at_least = [n for n in table if n >= ranks]
    return table[min(at_least) if at_least else max(table)] * 1e-6


@dataclass(frozen=True)
class Links:
    """Collectives of a stage of one GPU type in one shape. Bytes to seconds."""

    gpu: GpuSpec
    shape: StageShape

    def latency(self, ranks: int) -> float:
        """Start-up time of a collective inside an island, seconds."""
        return start_up_s(self.gpu, ranks)

    @cached_property
    def _inside(self) -> float:
        return link_speed(self.gpu)

    def all_reduce(self, message_bytes: FloatArray, ranks: int) -> FloatArray:
        """Ring all-reduce inside an island; 0 for one rank.

        Over islands: reduced inside, all-reduced between them, gathered inside.
        """
        if ranks > self.shape.gpus_per_island:
            g, z = self.shape.gpus_per_island, self.shape.islands
            inside = terms.all_reduce(message_bytes, g, self.latency(g), self._inside)
            return inside + self._between(2 * (z - 1), z, message_bytes / g)
        return terms.all_reduce(message_bytes, ranks, self.latency(ranks), self._inside)

    def _between(self, steps: int, islands: int, own_bytes: FloatArray) -> FloatArray:
        """A ring over islands in which every GPU has ``own_bytes`` at stake."""
        latency = steps * self.gpu.calibration.network_latency_us * 1e-6
        return latency + steps / islands * own_bytes / network_speed(self.gpu)

    def all_gather(self, gathered_bytes: FloatArray, ranks: int) -> FloatArray:
        """All-gather (or reduce-scatter) inside an island; 0 for one rank.

        Over islands: gathered between them first, then inside.
        """
        if ranks > self.shape.gpus_per_island:
            g, z = self.shape.gpus_per_island, self.shape.islands
            inside = terms.all_gather(gathered_bytes, g, self.latency(g), self._inside)
            return inside + self._between(z - 1, z, gathered_bytes / g)
        return terms.all_gather(
            gathered_bytes, ranks, self.latency(ranks), self._inside
        )

    def exchange(
        self, rows: FloatArray, token_bytes: int, experts: ExpertRank
    ) -> FloatArray:
        """How rows of a copy's attention ranks reach their experts and return."""
        shape = self.shape
        if shape.ep == 1:
            return 2 * self.all_gather(rows * token_bytes, shape.ranks_per_copy)
        sent = rows / (shape.moe_tp * shape.ep) * token_bytes
        ways = 2 * self.one_way(sent, experts)
        partial = rows / shape.ep * token_bytes
        return ways + self.all_reduce(partial, shape.moe_tp)

    def one_way(self, sent_bytes: FloatArray, experts: ExpertRank) -> FloatArray:
        """Dispatch or combine of what one GPU sends per expert of a token."""
        shape = self.shape
        return terms.one_way(
            sent_bytes,
            self.copies_inside(experts),
            self.copies_across(experts),
            self.latency(min(shape.ep, shape.gpus_per_island)),
            self.gpu.calibration.network_latency_us * 1e-6,
            self._inside,
            network_speed(self.gpu),
            shape.islands,
        )

    def copies_inside(self, experts: ExpertRank) -> float:
        """Copies of a token that leave its GPU: one per expert elsewhere."""
        return experts.top_k * (1 - 1 / self.shape.ep)

    def copies_across(self, experts: ExpertRank) -> float:
        """Copies that leave the island: one per other island with an expert of it."""
        islands = self.shape.islands
        met = islands * (1 - (1 - 1 / islands) ** experts.top_k)
        return min(experts.reachable_islands, met) * (1 - 1 / islands)
