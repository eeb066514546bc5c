"""The law of a pipelined replica, in integer nanoseconds (docs/cost-model.md §5).

Queueing percentiles will evaluate the same ``StageTimes``; today's figures are means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwright.cost.lengths import ceil_div


@dataclass(frozen=True)
class ReplicaTimes:
    """T, S and what follows from them for one replica."""

    bottleneck_ns: int
    loop_ns: int
    tpot_ns: int
    prefill_ns: int
    ttft_ns: int


def rate_mtok_per_s(sequences: int, tpot_ns: int) -> int:
    """Output tokens per 1000 seconds, rounded down."""
    return sequences * 10**12 // tpot_ns


def replica_times(
    micro_batches: int,
    chunk_count: int,
    decode_ns: Sequence[int],
    prefill_ns: Sequence[int],
    decode_hops_ns: Sequence[int],
    prefill_hops_ns: Sequence[int],
    return_ns: int,
) -> ReplicaTimes:
    """TPOT = max(q T, S); exact for a deterministic closed tandem with free buffers."""
    bottleneck = max(decode_ns)
    loop = sum(decode_ns) + sum(decode_hops_ns)
    if len(decode_ns) > 1:
        loop += return_ns
    tpot = max(micro_batches * bottleneck, loop)
    prefill = sum(prefill_ns) + sum(prefill_hops_ns)
    prefill += (chunk_count - 1) * max(prefill_ns)
    wait = ceil_div(tpot, 2 * micro_batches)
    return ReplicaTimes(bottleneck, loop, tpot, prefill, wait + prefill)
