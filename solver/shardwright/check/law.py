"""The law of a replica, integers in ns (docs/cost-model.md, section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardwright.check.lengths import Mix
from shardwright.check.stage import Point
from shardwright.schema.plan import ReplicaLatency

MTOK_NS = 10**12
"""Thousandths of a token per second in one token per nanosecond."""


@dataclass(frozen=True)
class Hops:
    """Hops between the stages of a replica and back to the first, in ns."""

    decode_ns: tuple[int, ...]
    prefill_ns: tuple[int, ...]
    return_ns: int

    def decode_total_ns(self) -> int:
        """Σ η + η_r."""
        return sum(self.decode_ns) + self.return_ns

    def decode_allowance_ns(self) -> int:
        """1 ns for each hop; the return is one more."""
        return len(self.decode_ns) + int(self.return_ns > 0)

    def prefill_allowance_ns(self) -> int:
        """1 ns for each hop."""
        return len(self.prefill_ns)


@dataclass(frozen=True)
class Law:
    """What stage times and hops make of a replica.

    ``slowest_ns`` is T, ``pass_ns`` is S.
    """

    slowest_ns: int
    pass_ns: int
    tpot_ns: int
    prefill_ns: int
    ttft_ns: int
    e2e_ns: int
    rate_mtok_per_s: int


def replica_law(
    point: Point, mix: Mix, hops: Hops, decode: Sequence[int], prefill: Sequence[int]
) -> Law:
    """T, S, Θ, Π, TTFT, e2e and the rate from the times of the stages."""
    slowest = max(decode)
    whole_pass = sum(decode) + hops.decode_total_ns()
    tpot = max(point.micro_batches * slowest, whole_pass)
    chunks = (point.chunk_count - 1) * max(prefill)
    law = Law(slowest, whole_pass, tpot, 0, 0, 0, 0)
    return complete(law, point, mix, tpot, sum(prefill) + sum(hops.prefill_ns) + chunks)


def complete(law: Law, point: Point, mix: Mix, tpot_ns: int, prefill_ns: int) -> Law:
    """The law with these Θ and Π, and what follows from them."""
    ttft = -(-tpot_ns // (2 * point.micro_batches)) + prefill_ns
    rate = point.sequences * MTOK_NS // tpot_ns if tpot_ns else 0
    return replace(
        law,
        tpot_ns=tpot_ns,
        prefill_ns=prefill_ns,
        ttft_ns=ttft,
        e2e_ns=ttft + math.ceil((mix.mean_output - 1) * tpot_ns),
        rate_mtok_per_s=rate,
    )


def tpot_range_ns(law: Law, point: Point, hops: Hops) -> tuple[int, int]:
    """The Θ that hops within their allowance lead to."""
    floor = point.micro_batches * law.slowest_ns
    allowance = hops.decode_allowance_ns()
    return max(floor, law.pass_ns - allowance), max(floor, law.pass_ns + allowance)


def settled(
    law: Law, point: Point, mix: Mix, hops: Hops, claimed: ReplicaLatency
) -> Law:
    """The law with the claimed Θ and Π wherever hops within their allowance give them.

    What follows from Θ and Π (TTFT, rate, e2e) is then exact again.
    """
    low, high = tpot_range_ns(law, point, hops)
    tpot = claimed.tpot_ns if low <= claimed.tpot_ns <= high else law.tpot_ns
    off = abs(claimed.prefill_ns - law.prefill_ns)
    close = off <= hops.prefill_allowance_ns()
    prefill = claimed.prefill_ns if close else law.prefill_ns
    return complete(law, point, mix, tpot, prefill)
