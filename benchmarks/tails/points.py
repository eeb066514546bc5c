"""The published grid of operating points.

One replica, in seconds: alpha 9.5 ms, 30 us per prompt token, 51 us per sequence (30 us
of compute and 1,280 tokens of KV at 16.3 ns), which is about a 70B model in 16 bit on
eight 80 GB GPUs. With four stages each takes a quarter, and each hop 0.1 ms.
Utilisation is the share of the rate at which the closed forms lose stability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from shardwright.cost.tails import IterationLaw, LengthLaw, RequestLaw, Station
from shardwright.cost.tails.load import Load
from shardwright.simulate import Group, Machine, Requests, StageLaw
from shardwright.simulate.requests import IntArray, arrivals, with_lengths

ALPHA_S, KAPPA_S, BETA_S, HOP_S = 9.5e-3, 30e-6 + 1280 * 16.3e-9, 30e-6, 1e-4


@dataclass(frozen=True)
class Draw:
    """A length law: constant, exponential, or lognormal with its cv."""

    name: str
    mean: float
    cv: float = 0.0

    @cached_property
    def law(self) -> LengthLaw:
        """As the closed forms take it."""
        if self.name == "constant":
            return LengthLaw.constant(self.mean)
        if self.name == "exponential":
            return LengthLaw.exponential(self.mean)
        return LengthLaw.lognormal(self.mean, self.cv)

    def sample(self, count: int, rng: np.random.Generator) -> IntArray:
        """As the simulator takes it."""
        if self.name == "constant":
            drawn = np.full(count, self.mean)
        elif self.name == "exponential":
            drawn = rng.exponential(self.mean, count)
        else:
            sigma2 = np.log1p(self.cv**2)
            drawn = rng.lognormal(
                np.log(self.mean) - sigma2 / 2, np.sqrt(sigma2), count
            )
        return np.maximum(np.rint(drawn), 1).astype(np.int64)

    def __str__(self) -> str:
        return f"{self.name[:5]} {self.mean:g}"


LENGTHS = (
    (Draw("constant", 1024), Draw("constant", 256)),
    (Draw("constant", 1024), Draw("exponential", 256)),
    (Draw("lognormal", 1024, 1.0), Draw("lognormal", 256, 1.0)),
    (Draw("exponential", 2048), Draw("exponential", 128)),
)


@dataclass(frozen=True)
class Point:
    """One operating point; ``kind``: mixed, slots (slot-bound) or pools (P/D)."""

    kind: str
    prompt: Draw
    output: Draw
    chunk: int
    stages: int
    slots: int
    use: float
    replicas: tuple[int, int] = (1, 1)

    @property
    def lengths(self) -> RequestLaw:
        """As the closed forms take them."""
        return RequestLaw(self.prompt.law, self.output.law)

    def station(self, role: str = "mixed") -> Station:
        """As the closed forms take the replica."""
        p = self.stages
        law = IterationLaw(ALPHA_S / p, KAPPA_S / p, BETA_S / p)
        rest = IterationLaw(
            (p - 1) * law.alpha_s + (p * HOP_S if p > 1 else 0.0),
            (p - 1) * law.kappa_s,
            (p - 1) * law.beta_s,
        )
        pays = role == "prefill"
        return Station(
            law,
            slots=self.slots,
            chunk_tokens=self.chunk,
            role=role,  # type: ignore[arg-type]
            rest=rest,
            micro_batches=p,
            first_token_extra_s=-HOP_S if p > 1 and role != "decode" else 0.0,
            kv_transfer_s=TRANSFER_S[0] if pays else 0.0,
            kv_transfer_s_per_token=TRANSFER_S[1] if pays else 0.0,
        )

    def machine(self) -> Machine:
        """As the simulator takes it."""
        p = self.stages
        stage = StageLaw(ALPHA_S / p, KAPPA_S / p, BETA_S / p)
        hops = (StageLaw(HOP_S, 0.0, 0.0),) * p if p > 1 else ()
        return Machine((stage,) * p, self.slots, self.chunk, p, hops)

    def groups(self) -> tuple[Group, ...]:
        """Pools of replicas."""
        one = self.machine()
        if self.kind != "pools":
            return (Group((one,)),)
        prefill, decode = self.replicas
        return (
            Group((one,) * prefill, "prefill", *TRANSFER_S),
            Group((one,) * decode, "decode"),
        )

    @cached_property
    def rate_per_s(self) -> float:
        """Requests/s at which the station is loaded to ``use``."""
        return self.use * self._limit_per_s

    @cached_property
    def _limit_per_s(self) -> float:
        if self.kind == "pools":
            prefill, decode = (
                n * self.station(role).capacity_per_s(self.lengths)
                for n, role in zip(self.replicas, ("prefill", "decode"), strict=True)
            )
            return min(prefill, decode)
        station, low = self.station(), 0.0
        high = station.capacity_per_s(self.lengths)
        for _ in range(12):
            middle = (low + high) / 2
            if Load(station, self.lengths, middle).utilisation < 1:
                low = middle
            else:
                high = middle
        return low

    def draw(self, count: int, rng: np.random.Generator) -> Requests:
        """Poisson arrivals."""
        times = arrivals(self.rate_per_s, count, rng)
        prompts = self.prompt.sample(count, rng)
        return with_lengths(times, prompts, self.output.sample(count, rng))

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.prompt}, {self.output}"


TRANSFER_S = (2e-3, 1e-6)
"""Start-up and per prompt token of the KV transfer between pools."""


def grid(quick: bool) -> Iterator[Point]:
    """Mixed points first, then slot-bound ones, then pools."""
    uses = (0.4, 0.75) if quick else (0.2, 0.4, 0.6, 0.75, 0.9)
    deep = (0.6,) if quick else (0.3, 0.6, 0.85)
    for stages, (prompt, output), chunk in product((1, 4), LENGTHS, (2048, 8192)):
        for use in uses if stages == 1 else deep:
            yield Point("mixed", prompt, output, chunk, stages, 512, use)
    bound = LENGTHS[1:2] if quick else LENGTHS[:3]
    for (prompt, output), use in product(bound, (0.75, 0.85, 0.95)):
        yield Point("slots", prompt, output, 8192, 1, 48, use)
    pools = LENGTHS[1:2] if quick else LENGTHS[1:]
    for (prompt, output), stages, use in product(pools, (1, 4), (0.5, 0.8)):
        yield Point("pools", prompt, output, 8192, stages, 512, use, (2, 1))


@dataclass(frozen=True)
class Burst:
    """All requests at once: only the simulator answers."""

    prompt: Draw
    output: Draw
    chunk: int
    stages: int
    count: int

    def station_point(self) -> Point:
        """The replica that they meet."""
        return Point(
            "burst", self.prompt, self.output, self.chunk, self.stages, 256, 1.0
        )


BURSTS = (
    Burst(*LENGTHS[0], 8192, 1, 100),
    Burst(*LENGTHS[0], 8192, 4, 100),
    Burst(*LENGTHS[1], 2048, 1, 1000),
    Burst(*LENGTHS[2], 8192, 1, 1000),
    Burst(*LENGTHS[2], 8192, 4, 1000),
)
