"""The law of a pipelined replica, in integer nanoseconds (docs/cost-model.md §5).

Queueing percentiles will evaluate the same ``StageTimes``; today's figures are means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from shardwright.cost.lengths import ceil_div
from shardwright.schema.plan import PoolRole


@dataclass(frozen=True)
class ReplicaTimes:
    """T, S and what follows from them for one replica."""

    bottleneck_ns: int
    loop_ns: int
    tpot_ns: int
    prefill_ns: int
    ttft_ns: int


def rate_mtok_per_s(period_tokens: int | Fraction, period_ns: int) -> int:
    """Thousandths of an output token per second, rounded down."""
    return int(period_tokens * 10**12 // period_ns)


def served(rates: Iterable[tuple[PoolRole, int]]) -> int:
    """Rate of a fleet: a request needs a prefill and a decode replica, or a mixed one.

    sum of mixed rates + min(sum of prefill rates, sum of decode rates).
    """
    total = {"mixed": 0, "prefill": 0, "decode": 0}
    for role, rate in rates:
        total[role] += rate
    return total["mixed"] + min(total["prefill"], total["decode"])


def replica_times(
    micro_batches: int,
    chunk_count: int,
    decode_ns: Sequence[int],
    prefill_ns: Sequence[int],
    decode_hops_ns: Sequence[int],
    prefill_hops_ns: Sequence[int],
    return_ns: int,
    transfer_ns: int = 0,
) -> ReplicaTimes:
    """TPOT = max(q T, S); exact for a deterministic closed tandem with free buffers."""
    bottleneck = max(decode_ns)
    loop = sum(decode_ns) + sum(decode_hops_ns)
    if len(decode_ns) > 1:
        loop += return_ns
    tpot = max(micro_batches * bottleneck, loop)
    prefill = sum(prefill_ns) + sum(prefill_hops_ns)
    prefill += (chunk_count - 1) * max(prefill_ns)
    wait = ceil_div(tpot, 2 * micro_batches) + transfer_ns
    ttft = wait + prefill if prefill else 0
    return ReplicaTimes(bottleneck, loop, tpot, prefill, ttft)
