"""Moments of request lengths, and the KV room and prompt work that follow from them.

Formulas: docs/cost-model.md section 1 and 2. Everything is an exact rational.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import isqrt

from shardwright.schema.workload import Lengths, Workload

_P99_Z = Fraction(233, 100)
_MICRO = 10**6
_CARRIED_TOKENS = 8192


@lru_cache(maxsize=4096)
def exact(value: float | int) -> Fraction:
    """The decimal that was written, not its binary neighbour."""
    return Fraction(repr(value))


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer not below numerator/denominator."""
    return -(-numerator // denominator)


def ceil_fraction(value: Fraction) -> int:
    """Smallest integer not below ``value``."""
    return ceil_div(value.numerator, value.denominator)


def moments(law: Lengths) -> tuple[Fraction, Fraction, Fraction]:
    """E[X], E[X^2], E[X^3] of a length law, in tokens."""
    if law.constant is not None:
        n = Fraction(law.constant)
        return n, n**2, n**3
    if law.mean is not None and law.cv is not None:
        mean, spread = exact(law.mean), 1 + exact(law.cv) ** 2
        return mean, mean**2 * spread, mean**3 * spread**3
    pairs = [(Fraction(x), exact(w)) for x, w in law.histogram or ()]
    total = sum((w for _, w in pairs), Fraction(0))
    first, second, third = (
        sum((x**k * w for x, w in pairs), Fraction(0)) / total for k in (1, 2, 3)
    )
    return first, second, third


@dataclass(frozen=True)
class RequestMix:
    """What the length laws mean for prompt work and KV room (tokens)."""

    output_mean: Fraction
    prompt_work: Fraction
    context_mean: Fraction
    context_variance: Fraction
    attended_mean: Fraction
    prompt_mean: Fraction
    prompt_variance: Fraction
    max_context: int
    reserve_full_context: bool

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, workload: Workload) -> RequestMix:
        """The mix of a workload."""
        l1, l2, _ = moments(workload.input_tokens)
        o1, o2, o3 = moments(workload.output_tokens)
        hit = exact(workload.prefix_cache_hit_ratio)
        context = l1 + o2 / (2 * o1)
        return cls(
            output_mean=o1,
            prompt_work=l1 * (1 - hit),
            context_mean=context,
            context_variance=l2 + l1 * o2 / o1 + o3 / (3 * o1) - context**2,
            attended_mean=l2 / l1 * (1 + hit) / 2,
            prompt_mean=l1,
            prompt_variance=l2 - l1**2,
            max_context=workload.max_context_tokens,
            reserve_full_context=workload.kv_reserve == "max_context",
        )

    @cached_property
    def _work_per_output(self) -> Fraction:
        return self.prompt_work / self.output_mean

    def prompt_tokens(self, micro_batch: int) -> int:
        """Prompt tokens c of one micro-batch in balance."""
        ratio = self._work_per_output
        return ceil_div(micro_batch * ratio.numerator, ratio.denominator)

    def chunks(self, chunk_tokens: int) -> int:
        """Prefill iterations K of a mean prompt."""
        work = self.prompt_work
        return ceil_div(work.numerator, work.denominator * chunk_tokens)

    def chunk_work(self, chunk_tokens: int) -> int:
        """Prompt tokens s of one prefill iteration of a mean prompt."""
        work = self.prompt_work
        return ceil_div(work.numerator, work.denominator * self.chunks(chunk_tokens))

    @property
    def carried_prompt(self) -> int:
        """Prompt tokens that an iteration carries when it carries any, in balance.

        A whole mean prompt, in pieces of the engines' usual budget where it is longer;
        the operating point's own chunk is left out, so TPOT does not depend on it.
        """
        return min(ceil_fraction(self.prompt_work), _CARRIED_TOKENS)

    def kv_tokens(self, sequences: int, prompts_only: bool = False) -> int:
        """Token room R(M) of ``sequences`` resident sequences, or of their prompts."""
        key = (sequences, prompts_only)
        if key not in self._rooms:
            mean, variance = self.context_mean, self.context_variance
            if prompts_only:
                mean, variance = self.prompt_mean, self.prompt_variance
            self._rooms[key] = self._room(sequences, mean, variance)
        return self._rooms[key]

    @cached_property
    def _rooms(self) -> dict[tuple[int, bool], int]:
        """Rooms already computed: variants of an instance ask for the same ones."""
        return {}

    def _room(self, resident: int, mean: Fraction, variance: Fraction) -> int:
        full = resident * self.max_context
        if self.reserve_full_context:
            return full
        square = _P99_Z**2 * resident * variance * _MICRO**2
        root = Fraction(_ceil_sqrt(ceil_fraction(square)), _MICRO)
        room = ceil_fraction(resident * mean + root)
        return max(min(full, room), self.max_context)


def _ceil_sqrt(value: int) -> int:
    root = isqrt(value)
    return root if root * root == value else root + 1
