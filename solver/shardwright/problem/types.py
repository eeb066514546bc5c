"""The integer problem: what every formulation reads, compiled once per instance.

Times are nanoseconds rounded up, rates thousandths of a token per second rounded
down, sizes bytes; ``ROUNDING`` states it in every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.law import ReplicaTimes
from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.cost.shape import StageShape
from shardwright.cost.tails import Target
from shardwright.schema.plan import PoolRole

IntArray = NDArray[np.int64]

ROUNDING = {
    "times_ns": "each layer and each stage constant rounded up",
    "rate_mtok_per_s": "rounded down",
    "price_micro_usd_per_hour": "rounded up",
    "balance_limits": "cut after six decimals",
}


@dataclass(frozen=True)
class Island:
    """GPUs of one class that reach one another over fast links, and are free."""

    gpu_class: int
    node: str
    gpus: tuple[int, ...]

    @property
    def free(self) -> int:
        """Number of usable GPUs."""
        return len(self.gpus)


@dataclass(frozen=True)
class GpuClass:
    """Interchangeable GPUs. ``capacity_bytes`` is what a stage may use of each."""

    name: str
    free_gpus: int
    capacity_bytes: int
    price_micro_usd_per_hour: int


@dataclass(frozen=True)
class Unit:
    """A GPU group that hosts one stage: a class and a shape."""

    gpu_class: int
    shape: StageShape

    @property
    def gpus(self) -> int:
        """GPUs of the unit."""
        return self.shape.gpus

    @property
    def islands(self) -> int:
        """Islands that the unit spreads over, with equally many GPUs on each."""
        return self.shape.islands


@dataclass(frozen=True)
class Point:
    """An operating point (docs/cost-model.md sections 2 and 10).

    ``period_tokens`` is how many output tokens one period TPOT is worth: M, or those
    of the prompts that a prefill replica takes in.
    """

    sequences: int
    micro_batches: int
    micro_batch: int
    prompt_tokens: int
    chunk_tokens: int
    chunk_count: int
    chunk_work: int
    period_tokens: Fraction
    role: PoolRole = "mixed"


@dataclass(frozen=True)
class Tables:
    """Integer cost tables; o = point, u = unit, g = layer kind, r = role, k = class.

    Shapes: decode_layer, prefill_layer, comm_layer, memory_layer (o, u, g);
    decode_role, prefill_role, comm_role, memory_role (o, u, r); hop_intra,
    prefill_hop_intra (o, k); hop_inter, prefill_hop_inter (o, k, k). ns and bytes.
    ``hop_inter`` is at the fastest links that two islands have; ``slower_hops``: decode
    and prefill hops (o, k, k) at level 2, 3, ... of ``Problem.reach``.
    ``memory_*`` are of an attention GPU (of every GPU of a stage, unless it is
    disaggregated), ``expert_memory_*`` of an expert GPU: like ``memory_*``, 0 where a
    unit has none, None where no unit has any.
    """

    decode_layer: IntArray
    decode_role: IntArray
    prefill_layer: IntArray
    prefill_role: IntArray
    comm_layer: IntArray
    comm_role: IntArray
    memory_layer: IntArray
    memory_role: IntArray
    hop_intra: IntArray
    hop_inter: IntArray
    prefill_hop_intra: IntArray
    prefill_hop_inter: IntArray
    return_ns: int
    slower_hops: tuple[tuple[IntArray, IntArray], ...] = ()
    expert_memory_layer: IntArray | None = None
    expert_memory_role: IntArray | None = None


@dataclass(frozen=True)
class MemoryRow:
    """Memory of one sort of GPU: ``layer`` (o, u, g), ``role`` (o, u, r), bytes.

    ``gpus[u]`` is how many GPUs of that sort a unit has.
    """

    layer: IntArray
    role: IntArray
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """Moving the KV cache of a prompt from a prefill to a decode replica.

    ``ns`` is what it adds to TTFT; ``mtok_per_s_per_gpu`` the rate that the links of
    one GPU carry (None: there is nothing to carry).
    """

    ns: int = 0
    mtok_per_s_per_gpu: int | None = None


NO_TRANSFER = Transfer()


@dataclass(frozen=True)
class Survival:
    """Rule survive: what must be left after losing any GPUs or nodes."""

    count: int
    of_nodes: bool
    rate_mtok_per_s: int


@dataclass(frozen=True)
class Bounds:
    """Limits as integers; None means not limited. Shares are exact rationals.

    The latency limits are those on means; ``targets`` are those on percentiles.
    """

    tpot_ns: int | None = None
    prefill_ns: int | None = None
    ttft_ns: int | None = None
    e2e_ns: int | None = None
    rate_mtok_per_s: int | None = None
    spare_gpus: int = 0
    max_gpus: int | None = None
    max_cost_micro_usd_per_hour: int | None = None
    memory_imbalance: Fraction | None = None
    compute_imbalance: Fraction | None = None
    communication_share: Fraction | None = None
    max_stages: int = 16
    stages: int | None = None
    replicas: int | None = None
    split: tuple[int, ...] | None = None
    memory_fits: bool = True
    targets: tuple[Target, ...] = ()
    survive: tuple[Survival, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Engine rules that shape a replica.

    ``copies_stand_alone``: a stage with several copies of the experts is all of its
    replica.
    """

    micro_batches_equal_stages: bool = True
    equal_shape_per_stage: bool = True
    copies_stand_alone: bool = False


@dataclass(frozen=True)
class StageChoice:
    """A stage of a design: unit index and layers [start, end)."""

    unit: int
    start: int
    end: int


@dataclass(frozen=True)
class Design:
    """A replica without GPU names.

    ``crossings[i]`` says whether the hop from stage i to i+1 leaves the island (a level
    of ``Problem.reach`` where links are told; 1 is the fastest); segments are the
    maximal runs between crossings.
    """

    point: int
    stages: tuple[StageChoice, ...]
    crossings: tuple[int, ...]

    def segment_runs(self) -> list[list[int]]:
        """Stage indices of every segment, in order."""
        runs = [[0]]
        for i, crossing in enumerate(self.crossings, start=1):
            if crossing:
                runs.append([])
            runs[-1].append(i)
        return runs


@dataclass(frozen=True)
class Figures:
    """Exact figures of one design; ``gpus`` counts per class.

    For a prefill replica ``tpot_ns`` is the period of its iterations; a decode
    replica has no prefill latency and no TTFT.
    ``memory_bytes`` is per stage and attention GPU, ``expert_memory_bytes`` per expert
    GPU (0 where a stage has none; empty where no unit has any).
    """

    times: ReplicaTimes
    rate_mtok_per_s: int
    decode_ns: tuple[int, ...]
    prefill_ns: tuple[int, ...]
    memory_bytes: tuple[int, ...]
    comm_ns: int
    gpus: tuple[int, ...]
    cost_micro_usd_per_hour: int
    role: PoolRole = "mixed"
    expert_memory_bytes: tuple[int, ...] = ()

    @property
    def tpot_ns(self) -> int:
        """Time per output token."""
        return self.times.tpot_ns


Signature = tuple[tuple[int, int], ...]
"""Sorted (class, GPUs) of the segments of a design."""


def stage_roles(stages: int) -> list[int]:
    """Role of every stage of a pipeline of ``stages``."""
    if stages == 1:
        return [ONLY]
    return [FIRST, *[MIDDLE] * (stages - 2), LAST]


@dataclass(frozen=True)
class PlacedReplica:
    """A design and the islands of each of its segments.

    A segment lies on one island; a stage that spreads over several is a segment.
    """

    design: Design
    islands: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Fleet:
    """A choice of replicas with islands that hold them."""

    replicas: tuple[PlacedReplica, ...]


def crossings_of(homes: Sequence[object]) -> tuple[bool, ...]:
    """Which hops leave an island, from the island (or part) of every stage."""
    return tuple(a != b for a, b in pairwise(homes))
