"""Moments of prompts and answers (docs/cost-model.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from shardwright.check.exact import exact
from shardwright.schema.workload import Lengths, Workload

Moments = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True)
class Mix:
    """What the cost model needs to know of the workload's lengths, in tokens.

    ``computed`` is the prompt left to compute after the prefix cache (L_e), ``kv_mean``
    and ``kv_variance`` describe the resident tokens of a decoding sequence, and
    ``attended`` the positions that a computed prompt token attends to.
    """

    mean_input: Fraction
    input_variance: Fraction
    mean_output: Fraction
    computed: Fraction
    kv_mean: Fraction
    kv_variance: Fraction
    attended: Fraction


def moments(law: Lengths) -> Moments:
    """E[X], E[X²], E[X³] of a length law."""
    if law.constant is not None:
        return _constant(law.constant)
    if law.histogram is not None:
        return _histogram(law.histogram)
    assert law.mean is not None and law.cv is not None
    return _lognormal(law.mean, law.cv)


def _constant(tokens: int) -> Moments:
    return Fraction(tokens), Fraction(tokens) ** 2, Fraction(tokens) ** 3


def _lognormal(mean: float, cv: float) -> Moments:
    mu = exact(mean)
    spread = 1 + exact(cv) ** 2
    return mu, mu**2 * spread, mu**3 * spread**3


def _histogram(bins: tuple[tuple[int, float], ...]) -> Moments:
    total = sum((exact(weight) for _, weight in bins), Fraction(0))

    def moment(power: int) -> Fraction:
        parts = (exact(weight) * tokens**power for tokens, weight in bins)
        return sum(parts, Fraction(0)) / total

    return moment(1), moment(2), moment(3)


def mix_of(workload: Workload) -> Mix:
    """The table of section 1 for a workload."""
    l1, l2, _ = moments(workload.input_tokens)
    o1, o2, o3 = moments(workload.output_tokens)
    cached = exact(workload.prefix_cache_hit_ratio)
    kv_mean = l1 + o2 / (2 * o1)
    kv_square = l2 + l1 * o2 / o1 + o3 / (3 * o1)
    return Mix(
        mean_input=l1,
        input_variance=l2 - l1**2,
        mean_output=o1,
        computed=l1 * (1 - cached),
        kv_mean=kv_mean,
        kv_variance=kv_square - kv_mean**2,
        attended=l2 / l1 * (1 + cached) / 2,
    )
