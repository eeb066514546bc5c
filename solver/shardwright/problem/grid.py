"""The grid of operating points (DESIGN section 4): printed with every result."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shardwright.cost.lengths import RequestMix, ceil_div, ceil_fraction
from shardwright.problem.types import Point
from shardwright.schema.instance import Instance, Pools

DEFAULT_CHUNKS = (512, 1024, 2048, 4096, 8192)
DEFAULT_FREE_MICRO_BATCHES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class PointGrid:
    """Values that each coordinate of an operating point may take.

    ``sequences`` is the list asked for; None: ``micro_batch_sizes`` times q, up to
    ``max_batch``, and ``at_limits``, what memory or TPOT allow per q. ``coarse`` steps
    by powers of two: with targets on percentiles each point is a queueing model.
    """

    sequences: tuple[int, ...] | None
    max_batch: int
    at_limits: dict[int, tuple[int, ...]]
    chunk_tokens: tuple[int, ...]
    micro_batches: tuple[int, ...]
    equal_stages: bool
    pools: Pools = "mixed"
    coarse: bool = False

    def document(self) -> dict[str, Any]:
        """The grid as printed."""
        q = "number of stages" if self.equal_stages else list(self.micro_batches)
        return {
            "sequences": {str(n): self._batches(n) for n in self.micro_batches},
            "prefill_chunk_tokens": list(self.chunk_tokens),
            "micro_batches": q,
            "pools": self.pools,
        }

    def _batches(self, q: int) -> list[int]:
        if self.sequences is not None:
            return [m for m in self.sequences if m >= q]
        top = self.max_batch // q
        sizes = powers_of_two(top) if self.coarse else eighth_octaves(top)
        limits = self.at_limits.get(q, ())
        return sorted({*(q * m for m in sizes), *limits, max(q, self.max_batch)})

    def points(self, mix: RequestMix) -> tuple[Point, ...]:
        """All points of the roles asked for, in order."""
        found: tuple[Point, ...] = ()
        if self.pools != "disaggregated":
            found += self._mixed(mix)
        if self.pools != "mixed":
            found += self._prefill(mix) + self._decode()
        return found

    def _prefill(self, mix: RequestMix) -> tuple[Point, ...]:
        found = (
            prefill_point(mix, q, chunk)
            for q in self.micro_batches
            for chunk in self.chunk_tokens
        )
        return tuple(p for p in found if p.sequences <= self.max_batch)

    def _decode(self) -> tuple[Point, ...]:
        return tuple(
            decode_point(sequences, q)
            for q in self.micro_batches
            if q <= self.max_batch
            for sequences in self._batches(q)
        )

    def _mixed(self, mix: RequestMix) -> tuple[Point, ...]:
        """Points that satisfy q <= M and chunk_feeds_batch."""
        candidates = (
            make_point(mix, sequences, q, chunk)
            for q in self.micro_batches
            if q <= self.max_batch
            for sequences in self._batches(q)
            for chunk in self.chunk_tokens
        )
        return tuple(p for p in candidates if p.prompt_tokens <= p.chunk_tokens)


def powers_of_two(top: int) -> list[int]:
    """1, 2, 4, ... up to ``top``."""
    return [1 << i for i in range(top.bit_length())]


def eighth_octaves(top: int) -> list[int]:
    """1, 2, ..., 16, 18, 20, ..., 32, 36, ...: eight steps to every power of two."""
    coarse = [
        step * 2**power
        for power in range(1, top.bit_length())
        for step in range(9, 17)
        if step * 2**power <= top
    ]
    return [*range(1, min(top, 16) + 1), *coarse]


def make_point(mix: RequestMix, sequences: int, q: int, chunk: int) -> Point:
    """The operating point with its derived fields."""
    m = ceil_div(sequences, q)
    return Point(
        sequences=sequences,
        micro_batches=q,
        micro_batch=m,
        prompt_tokens=mix.prompt_tokens(m),
        chunk_tokens=chunk,
        chunk_count=mix.chunks(chunk),
        chunk_work=mix.chunk_work(chunk),
        period_tokens=Fraction(sequences),
    )


def decode_point(sequences: int, q: int) -> Point:
    """A decode replica's point: no prompt work."""
    return Point(
        sequences=sequences,
        micro_batches=q,
        micro_batch=ceil_div(sequences, q),
        prompt_tokens=0,
        chunk_tokens=0,
        chunk_count=1,
        chunk_work=0,
        period_tokens=Fraction(sequences),
        role="decode",
    )


def prefill_point(mix: RequestMix, q: int, chunk: int) -> Point:
    """A prefill replica's point: full chunks in each of q micro-batches.

    Room for the prompts under way and as many whose KV cache is being fetched.
    """
    prompts = 2 * q * max(1, ceil_fraction(chunk / mix.prompt_work))
    return Point(
        sequences=prompts,
        micro_batches=q,
        micro_batch=0,
        prompt_tokens=chunk,
        chunk_tokens=chunk,
        chunk_count=mix.chunks(chunk),
        chunk_work=mix.chunk_work(chunk),
        period_tokens=q * chunk * mix.output_mean / mix.prompt_work,
        role="prefill",
    )


def chunk_values(instance: Instance) -> tuple[int, ...]:
    """Prefill chunks to try, none above the context."""
    limit = instance.workload.max_context_tokens
    fixed = instance.fix.prefill_chunk_tokens
    if fixed is not None:
        return (fixed,)
    listed = instance.grid.prefill_chunk_tokens or DEFAULT_CHUNKS
    return tuple(sorted({min(chunk, limit) for chunk in listed}))


def sequence_values(instance: Instance) -> tuple[int, ...] | None:
    """The sequences that ``fix`` or the grid list; None: the default grid."""
    if instance.fix.sequences is not None:
        return (instance.fix.sequences,)
    if instance.grid.sequences is None:
        return None
    top = instance.workload.max_batch
    return tuple(sorted({m for m in instance.grid.sequences if m <= top}))


def micro_batch_values(
    instance: Instance, equal_stages: bool, max_stages: int
) -> tuple[int, ...]:
    """Micro-batch counts: every stage count where the engine ties them."""
    fix = instance.fix
    if fix.micro_batches is not None:
        return (fix.micro_batches,)
    listed = instance.grid.micro_batches
    if not equal_stages:
        return listed or DEFAULT_FREE_MICRO_BATCHES
    stages = (fix.pp,) if fix.pp is not None else range(1, max_stages + 1)
    return tuple(q for q in stages if listed is None or q in listed)
