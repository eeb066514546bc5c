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
    """Values that each coordinate of an operating point may take."""

    sequences: tuple[int, ...]
    chunk_tokens: tuple[int, ...]
    micro_batches: tuple[int, ...]
    equal_stages: bool

    def document(self) -> dict[str, Any]:
        """The grid as printed."""
        q = "number of stages" if self.equal_stages else list(self.micro_batches)
        return {
            "sequences": list(self.sequences),
            "prefill_chunk_tokens": list(self.chunk_tokens),
            "micro_batches": q,
        }

    def points(self, mix: RequestMix) -> tuple[Point, ...]:
        """All points that satisfy q <= M and chunk_feeds_batch, in order."""
        candidates = (
            make_point(mix, sequences, q, chunk)
            for q in self.micro_batches
            for sequences in self.sequences
            if q <= sequences
            for chunk in self.chunk_tokens
        )
        return tuple(p for p in candidates if p.prompt_tokens <= p.chunk_tokens)


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


def sequence_values(instance: Instance, memory_limits: set[int]) -> tuple[int, ...]:
    """Powers of two, the batch limit, and the largest values that memory allows."""
    if instance.fix.sequences is not None:
        return (instance.fix.sequences,)
    top = instance.workload.max_batch
    if instance.grid.sequences is not None:
        return tuple(sorted({m for m in instance.grid.sequences if m <= top}))
    powers = {2**i for i in range(top.bit_length()) if 2**i <= top}
    return tuple(sorted(powers | {top} | memory_limits))


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
