"""The grid of operating points (DESIGN section 4): printed with every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardwright.cost.lengths import RequestMix, ceil_div
from shardwright.problem.types import Point
from shardwright.schema.instance import Instance

DEFAULT_CHUNKS = (512, 1024, 2048, 4096, 8192)
DEFAULT_FREE_MICRO_BATCHES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class PointGrid:
    """Values that each coordinate of an operating point may take.

    ``sequences`` is the list asked for; None: ``micro_batch_sizes`` times q, up to
    ``max_batch``, and ``at_limits``, what memory or TPOT allow per q.
    """

    sequences: tuple[int, ...] | None
    max_batch: int
    at_limits: dict[int, tuple[int, ...]]
    chunk_tokens: tuple[int, ...]
    micro_batches: tuple[int, ...]
    equal_stages: bool

    def document(self) -> dict[str, Any]:
        """The grid as printed."""
        q = "number of stages" if self.equal_stages else list(self.micro_batches)
        return {
            "sequences": {str(n): self._batches(n) for n in self.micro_batches},
            "prefill_chunk_tokens": list(self.chunk_tokens),
            "micro_batches": q,
        }

    def _batches(self, q: int) -> list[int]:
        if self.sequences is not None:
            return [m for m in self.sequences if m >= q]
        sizes = eighth_octaves(self.max_batch // q)
        limits = self.at_limits.get(q, ())
        return sorted({*(q * m for m in sizes), *limits, max(q, self.max_batch)})

    def points(self, mix: RequestMix) -> tuple[Point, ...]:
        """All points that satisfy q <= M and chunk_feeds_batch, in order."""
        candidates = (
            make_point(mix, sequences, q, chunk)
            for q in self.micro_batches
            if q <= self.max_batch
            for sequences in self._batches(q)
            for chunk in self.chunk_tokens
        )
        return tuple(p for p in candidates if p.prompt_tokens <= p.chunk_tokens)


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
    if equal_stages:
        return (fix.pp,) if fix.pp is not None else tuple(range(1, max_stages + 1))
    return instance.grid.micro_batches or DEFAULT_FREE_MICRO_BATCHES
