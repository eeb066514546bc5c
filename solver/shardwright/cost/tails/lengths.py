"""Laws of request lengths as weighted values, and what the closed forms need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import erfc, exp, log, log1p, sqrt
from statistics import NormalDist

import numpy as np

from shardwright.cost.tails.points import Axis, FloatArray, IntArray, coordinates
from shardwright.schema.workload import Lengths, Workload

_CELLS = 256
_TOP_LEVEL = 11.5


@dataclass(frozen=True, eq=False)
class LengthLaw:
    """Values in tokens, ascending, and their weights, which sum to 1.

    Continuous laws are cut into 256 cells, fine in the upper tail, each at its
    conditional mean, so that means are exact.
    """

    values: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, law: Lengths, scale: float = 1.0) -> LengthLaw:
        """The law of a document, every length times ``scale``."""
        if law.constant is not None:
            return cls.constant(law.constant * scale)
        if law.mean is not None and law.cv is not None:
            return cls.lognormal(law.mean * scale, law.cv)
        pairs = tuple((x * scale, w) for x, w in law.histogram or ())
        return cls.histogram(pairs)

    @classmethod
    def constant(cls, tokens: float) -> LengthLaw:
        """All of one length."""
        return _constant(float(tokens))

    @classmethod
    def lognormal(cls, mean: float, cv: float) -> LengthLaw:
        """Lognormal with this mean and coefficient of variation."""
        return _lognormal(float(mean), float(cv)) if cv else _constant(float(mean))

    @classmethod
    def exponential(cls, mean: float) -> LengthLaw:
        """Exponential with this mean."""
        return _exponential(float(mean))

    @classmethod
    def histogram(cls, pairs: Sequence[tuple[float, float]]) -> LengthLaw:
        """Values with weights of any sum."""
        return _histogram(tuple((float(x), float(w)) for x, w in pairs))

    @cached_property
    def mean(self) -> float:
        """First moment, tokens."""
        return float(self.values @ self.weights)

    @cached_property
    def second(self) -> float:
        """Second moment, tokens^2."""
        return float(self.values**2 @ self.weights)

    @cached_property
    def _indices(self) -> dict[Axis, IntArray]:
        return {}

    def index(self, axis: Axis) -> IntArray:
        """Which value every point draws with its coordinate on ``axis``."""
        if axis not in self._indices:
            cumulative = np.cumsum(self.weights)
            found = np.searchsorted(cumulative, coordinates(axis) * cumulative[-1])
            self._indices[axis] = np.minimum(found, len(self.values) - 1)
        return self._indices[axis]

    def at(self, axis: Axis) -> FloatArray:
        """The length of every point."""
        return self.values[self.index(axis)]

    def quantile(self, share: float) -> float:
        """Least value with at least ``share`` of the weight at or below it."""
        total = float(self._cumulative[-1])
        index = int(np.searchsorted(self._cumulative, share * total - 1e-12))
        return float(self.values[min(index, len(self.values) - 1)])

    @cached_property
    def _cumulative(self) -> FloatArray:
        return np.cumsum(self.weights)

    def on_lattice(self, quantum: float, size: int) -> FloatArray:
        """Probabilities of 0, 1, ... ``size`` - 1 quanta; keeps the mean.

        A value between two quanta is split over both; what lies above is lumped at the
        last.
        """
        at = np.minimum(self.values / quantum, size - 1.000001)
        below = at.astype(np.int64)
        share = at - below
        low = np.bincount(below, self.weights * (1 - share), size)
        high = np.bincount(below + 1, self.weights * share, size)
        return np.asarray(low + high, dtype=np.float64)

    @cached_property
    def _chunks(self) -> dict[float, float]:
        return {}

    def chunks(self, chunk: float) -> float:
        """Mean number of chunks of a prompt."""
        if chunk not in self._chunks:
            counts = np.ceil(np.maximum(self.values, 1) / chunk)
            self._chunks[chunk] = float(counts @ self.weights)
        return self._chunks[chunk]


@lru_cache(maxsize=4096)
def _constant(tokens: float) -> LengthLaw:
    return LengthLaw(np.array([tokens]), np.array([1.0]))


@lru_cache(maxsize=1024)
def _histogram(pairs: tuple[tuple[float, float], ...]) -> LengthLaw:
    table = np.array(sorted(pairs))
    return LengthLaw(table[:, 0], table[:, 1] / table[:, 1].sum())


@lru_cache(maxsize=1024)
def _lognormal(mean: float, cv: float) -> LengthLaw:
    sigma = sqrt(log1p(cv * cv))
    inverse = NormalDist().inv_cdf

    def partial_mean(share: float) -> float:
        if share in (0.0, 1.0):
            return mean * share
        return mean * 0.5 * erfc((sigma - inverse(share)) / sqrt(2))

    return _from_cells(partial_mean)


@lru_cache(maxsize=1024)
def _exponential(mean: float) -> LengthLaw:
    def partial_mean(share: float) -> float:
        left = 1.0 - share
        return mean * (1.0 - left + left * log(left)) if left else mean

    return _from_cells(partial_mean)


def _from_cells(partial_mean: Callable[[float], float]) -> LengthLaw:
    """Cells of a law whose mean over its lowest share is known."""
    edges = [1.0 - exp(-_TOP_LEVEL * i / (_CELLS - 1)) for i in range(_CELLS)] + [1.0]
    weights = np.diff(edges)
    means = np.diff([partial_mean(edge) for edge in edges]) / weights
    return LengthLaw(np.maximum(means, 1e-9), weights)


@dataclass(frozen=True, eq=False)
class RequestLaw:
    """Prompt tokens to compute, and output tokens; independent."""

    prompt: LengthLaw
    output: LengthLaw

    @classmethod
    def of(cls, workload: Workload) -> RequestLaw:
        """Lengths of a workload; the cached share of prompts needs no work.

        Equal lengths give the same object.
        """
        return _request(
            LengthLaw.of(workload.input_tokens, 1 - workload.prefix_cache_hit_ratio),
            LengthLaw.of(workload.output_tokens),
        )

    @cached_property
    def steps(self) -> LengthLaw:
        """Decode iterations: the first token comes with the prompt."""
        return LengthLaw(np.maximum(self.output.values - 1, 0), self.output.weights)

    @cached_property
    def overlap(self) -> Overlap:
        """Moments of how long two requests decode together."""
        return Overlap.of(self.steps)

    def overlap_at(self, axis: Axis) -> Overlap:
        """``overlap`` of every point's request."""
        return self.overlap.at(self.steps.index(axis))


@lru_cache(maxsize=256)
def _request(prompt: LengthLaw, output: LengthLaw) -> RequestLaw:
    return RequestLaw(prompt, output)


@dataclass(frozen=True, eq=False)
class Overlap:
    """Iterations that a request of each number of steps shares with others.

    ``fresh``: with one that starts together with it, E min(X, o), X a number of steps.
    ``present``: with one that was there before, E min(R, o), R the residual in
    equilibrium.
    ``later``: with one that comes while it runs, E min(X, o U), U uniform. The last two
    with second moments; arrays over the values of the law of steps.
    """

    fresh: FloatArray
    present: FloatArray
    present2: FloatArray
    later: FloatArray
    later2: FloatArray

    def at(self, index: IntArray) -> Overlap:
        """Some of the entries."""
        return Overlap(
            self.fresh[index],
            self.present[index],
            self.present2[index],
            self.later[index],
            self.later2[index],
        )

    @classmethod
    def of(cls, law: LengthLaw) -> Overlap:
        """Integrals of r^k G(r), G(r) = P(X > r), which is a step function here."""
        o, edges = law.values, np.concatenate([[0.0], law.values])
        tail = (1.0 - np.concatenate([[0.0], np.cumsum(law.weights)[:-1]])).clip(0.0)
        a0, a1, a2 = (
            np.cumsum(tail * np.diff(edges ** (k + 1)) / (k + 1)) for k in (0, 1, 2)
        )
        beyond, mean, span = (a0[-1] - a0).clip(0.0), max(a0[-1], 1e-12), o.clip(1e-12)
        return cls(
            fresh=a0,
            present=(a1 + o * beyond) / mean,
            present2=(a2 + o**2 * beyond) / mean,
            later=a0 - a1 / span,
            later2=2 * (a1 - a2 / span),
        )
