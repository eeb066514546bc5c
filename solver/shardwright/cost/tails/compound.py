"""Prompt tokens that come within a time: a Poisson number of prompts of one law."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shardwright.cost.tails.lengths import LengthLaw
from shardwright.cost.tails.normal import gamma_quantile, normal_at
from shardwright.cost.tails.points import (
    Axis,
    ComplexArray,
    FloatArray,
    IntArray,
    coordinates,
    level_grid,
)

_SIZE = 1024
_LARGEST = 40
_FEW = 24.0


@dataclass(frozen=True, eq=False)
class PromptSums:
    """Quantiles of the tokens of 0, 1, ... prompts together, on the grid of levels."""

    prompt: LengthLaw
    table: FloatArray

    @classmethod
    def of(cls, prompt: LengthLaw) -> PromptSums:
        """Cached: it depends on the lengths alone."""
        return _sums(prompt)

    def tokens(self, counts: IntArray, at: tuple[IntArray, FloatArray]) -> FloatArray:
        """Tokens of ``counts`` prompts at each level (``points.steps_of``)."""
        if len(self.prompt.values) == 1:
            return counts.astype(np.float64) * self.prompt.mean
        below, part = at
        row = np.minimum(counts, _LARGEST)
        low = self.table[row, below]
        found: FloatArray = low + part * (self.table[row, below + 1] - low)
        # beyond the table the sum is stretched about its mean
        scale = np.maximum(counts, _LARGEST) / _LARGEST
        if counts.max(initial=0) > _LARGEST:
            centre = row * self.prompt.mean
            found = centre * scale + (found - centre) * np.sqrt(scale)
        return found


@lru_cache(maxsize=64)
def _sums(prompt: LengthLaw) -> PromptSums:
    if len(prompt.values) == 1:
        return PromptSums(prompt, np.zeros((1, 1)))
    rows = [np.zeros(len(level_grid()))]
    for count in range(1, _LARGEST + 1):
        deviation = np.sqrt(count * max(prompt.second - prompt.mean**2, 0.0))
        reach = count * prompt.mean + 7 * deviation + 2 * float(prompt.values[-1])
        quantum = reach / (_SIZE - 2)
        transform = np.fft.rfft(prompt.on_lattice(quantum, _SIZE))
        rows.append(_levels(np.fft.irfft(transform**count, _SIZE), quantum))
    return PromptSums(prompt, np.array(rows))


def _levels(law: FloatArray, quantum: float) -> FloatArray:
    """Quantiles of a law on a lattice, linear within a quantum."""
    cumulative = np.cumsum(law.clip(0.0))
    cumulative /= cumulative[-1]
    grid = (np.arange(len(law)) + 0.5) * quantum
    found: FloatArray = np.interp(level_grid(), cumulative, grid)
    return found


def count_quantile(
    mean: FloatArray, share: FloatArray, normal: FloatArray, ca2: float = 1.0
) -> IntArray:
    """Least n with P(N <= n) >= share, N the arrivals in a time.

    Poisson, or where ``ca2`` is above 1 negative binomial with variance ca2 times the
    mean (bursts at random times); a gamma law of the same moments if the mean is large.
    ``normal`` is the standard normal quantile of the share.
    """
    few = mean <= _FEW
    found = np.zeros(len(mean), dtype=np.int64)
    if not few.all():
        many = np.rint(gamma_quantile(mean, max(ca2, 1.0) * mean, normal))
        found = np.where(few, 0, many).astype(np.int64)
    small = np.where(few, mean, 0.0)
    again = 1.0 - 1.0 / max(ca2, 1.0)
    # P(n + 1)/P(n) = (small (1 - again) + again n)/(n + 1), again = 0: Poisson
    rate = small * (1.0 - again)
    term = np.exp(-small * (np.log(ca2) / (ca2 - 1) if again else 1.0))
    cumulative = term.copy()
    for count in range(int(_FEW * 3 * max(ca2, 1.0))):
        below = few & (cumulative < share)
        if not below.any():
            break
        found += below
        term *= (rate + again * count) / (count + 1)
        cumulative += term
    return found


def burst_cumulant(transform: ComplexArray, ca2: float) -> ComplexArray:
    """Log of the transform of the arrivals of a time in which one is expected.

    ``transform`` is that of one prompt; see ``count_quantile``.
    """
    if ca2 <= 1.0:
        return transform - 1.0
    inner: ComplexArray = ca2 - (ca2 - 1.0) * transform
    return np.asarray(-np.log(inner) / (ca2 - 1.0), dtype=np.complex128)


def burst_mates(ca2: float) -> tuple[IntArray, IntArray]:
    """Others of the burst that each point's request belongs to: ahead, and behind."""
    if ca2 <= 1.0:
        none = np.zeros(len(coordinates(Axis.BURST)), dtype=np.int64)
        return none, none
    again = np.log1p(-1.0 / ca2)
    others = np.floor(np.log1p(-coordinates(Axis.BURST)) / again)
    ahead = np.floor(coordinates(Axis.PLACE) * (others + 1.0))
    return ahead.astype(np.int64), (others - ahead).astype(np.int64)


def progeny_quantile(
    founders: FloatArray, children: FloatArray, axis: Axis
) -> FloatArray:
    """Quantile of how many come in all, where each brings a Poisson number of more.

    Generalised Poisson law (Consul): P(n) = f (f + n c)^(n-1) exp(-f - n c) / n!, f the
    mean number of ``founders``, c of ``children``. A gamma law of its moments if large.
    """
    children = np.minimum(children, 0.98)
    mean = founders / (1 - children)
    found = gamma_quantile(mean, mean / (1 - children) ** 2, normal_at(axis))
    few = np.flatnonzero((mean <= _PROGENY) & (founders > 0))
    f, c, left = founders[few], children[few], coordinates(axis)[few]
    counts = np.zeros(len(few))
    log_factorial, term = 0.0, np.exp(-f)
    active = np.arange(len(few))
    left = left - term
    for n in range(1, _LONGEST):
        keep = left > 0
        if not keep.any():
            break
        active, left, f, c = active[keep], left[keep], f[keep], c[keep]
        counts[active] = n
        log_factorial += np.log(n)
        total = f + n * c
        left = left - np.exp(
            np.log(f) + (n - 1) * np.log(total) - total - log_factorial
        )
    found[few] = counts
    found[founders <= 0] = 0.0
    return found


_PROGENY = 10.0
_LONGEST = 400
