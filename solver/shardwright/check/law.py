"""The law of a replica, integers in ns (docs/cost-model.md, sections 5 and 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from shardwright.check.lengths import Mix
from shardwright.check.stage import Point
from shardwright.check.transfer import Transfer
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
        """1 ns for each hop; a decode replica has none."""
        return len(self.prefill_ns)


@dataclass(frozen=True)
class Service:
    """What the law takes besides stage times; ``gpus`` of the replica hold cache."""

    point: Point
    mix: Mix
    hops: Hops
    gpus: int
    transfer: Transfer

    def period_tokens(self) -> Fraction:
        """Y: output tokens of a period, made or with their prompts taken in."""
        point, mix = self.point, self.mix
        if point.role != "prefill":
            return Fraction(point.sequences)
        taken = point.micro_batches * point.chunk
        return taken * mix.mean_output / mix.computed

    def link_rate_mtok_per_s(self) -> int | None:
        """G·ρ of a prefill or decode replica; None: no limit."""
        rate = self.transfer.gpu_rate_mtok_per_s
        if self.point.role == "mixed" or rate is None:
            return None
        return self.gpus * rate


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


def replica_law(service: Service, decode: Sequence[int], prefill: Sequence[int]) -> Law:
    """T, S, Θ, Π, TTFT, e2e and the rate from the times of the stages."""
    point, hops = service.point, service.hops
    slowest = max(decode)
    whole_pass = sum(decode) + hops.decode_total_ns()
    tpot = max(point.micro_batches * slowest, whole_pass)
    chunks = (point.chunk_count - 1) * max(prefill)
    law = Law(slowest, whole_pass, tpot, 0, 0, 0, 0)
    return complete(law, service, tpot, sum(prefill) + sum(hops.prefill_ns) + chunks)


def complete(law: Law, service: Service, tpot_ns: int, prefill_ns: int) -> Law:
    """The law with these Θ and Π, and what follows from them."""
    ttft = _ttft_ns(service, tpot_ns, prefill_ns)
    return replace(
        law,
        tpot_ns=tpot_ns,
        prefill_ns=prefill_ns,
        ttft_ns=ttft,
        e2e_ns=ttft + math.ceil((service.mix.mean_output - 1) * tpot_ns),
        rate_mtok_per_s=_rate_mtok_per_s(service, tpot_ns),
    )


def _ttft_ns(service: Service, tpot_ns: int, prefill_ns: int) -> int:
    """The wait for an iteration and the prefill; a decode replica has neither."""
    point = service.point
    if point.role == "decode":
        return 0
    fetch = service.transfer.fetch_ns if point.role == "prefill" else 0
    return -(-tpot_ns // (2 * point.micro_batches)) + fetch + prefill_ns


def _rate_mtok_per_s(service: Service, tpot_ns: int) -> int:
    rate = math.floor(service.period_tokens() * MTOK_NS / tpot_ns) if tpot_ns else 0
    most = service.link_rate_mtok_per_s()
    return rate if most is None else min(rate, most)


def tpot_range_ns(law: Law, point: Point, hops: Hops) -> tuple[int, int]:
    """The Θ that hops within their allowance lead to."""
    floor = point.micro_batches * law.slowest_ns
    allowance = hops.decode_allowance_ns()
    return max(floor, law.pass_ns - allowance), max(floor, law.pass_ns + allowance)


def settled(law: Law, service: Service, claimed: ReplicaLatency) -> Law:
    """The law with the claimed Θ and Π wherever hops within their allowance give them.

    What follows from Θ and Π (TTFT, rate, e2e) is then exact again.
    """
    low, high = tpot_range_ns(law, service.point, service.hops)
    tpot = claimed.tpot_ns if low <= claimed.tpot_ns <= high else law.tpot_ns
    off = abs(claimed.prefill_ns - law.prefill_ns)
    close = off <= service.hops.prefill_allowance_ns()
    prefill = claimed.prefill_ns if close else law.prefill_ns
    return complete(law, service, tpot, prefill)
