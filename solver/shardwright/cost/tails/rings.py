"""Pipelines with q micro-batches: the max-plus recursion of their starts and ends.

Micro-batch k starts at the bottleneck when the one before it is through and the one a
lap earlier is back, A[k] = max(A[k-1] + x[k-1], E[k-q]); it ends at
E[k] = max(A[k] + x[k] + rest[k], E[k-1] + x[k]), because behind a larger one it waits
at every stage. A large prompt so leaves a bubble a lap later, which no mean shows. The
recursion runs on a fixed set of rings, for several batch sizes at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from shardwright.cost.tails.compound import PromptSums, count_quantile
from shardwright.cost.tails.lengths import RequestLaw
from shardwright.cost.tails.normal import normal_quantile
from shardwright.cost.tails.points import FloatArray, IntArray, steps_of
from shardwright.cost.tails.station import Station

NODES = 10
_RINGS = 128
_LEAST_LAPS = 12
_LEAST_STEPS = 96
_SEED = 20_240_229


class Draw(NamedTuple):
    """Fixed shares of one step of all rings: for the count of prompts and their sum."""

    arrivals: FloatArray
    arrivals_normal: FloatArray
    size: tuple[IntArray, FloatArray]


@cache
def _draws(steps: int) -> tuple[Draw, ...]:
    """Evenly spread over the rings of every node."""
    rng = np.random.default_rng(_SEED)
    even = (np.arange(_RINGS) + 0.5) / _RINGS

    def shares() -> FloatArray:
        return np.tile(rng.permutation(even), NODES)

    draws = []
    for _ in range(steps):
        count, size = shares(), shares()
        draws.append(Draw(count, normal_quantile(count), steps_of(size)))
    return tuple(draws)


@dataclass(frozen=True, eq=False)
class RingStates:
    """What a request finds, per kept state (axis 0) and node (axis 1).

    ``backlog`` prompt tokens when the latest micro-batch was formed, ``gap_s`` from its
    start to the next, ``carry_s`` from the next start to the latest end, ``lap_s`` the
    time between two ends of one micro-batch.
    """

    backlog: FloatArray
    gap_s: FloatArray
    carry_s: FloatArray
    lap_s: FloatArray


@dataclass(frozen=True, eq=False)
class Rings:
    """Stationary rings of a station at one rate, for ``NODES`` batch sizes."""

    station: Station
    lengths: RequestLaw
    rate_per_s: float
    ca2: float = 1.0

    @cached_property
    def nodes(self) -> FloatArray:
        """Batch sizes, closer together where they are small."""
        top = 0.0 if self.station.role == "prefill" else float(self.station.slots)
        return top * (np.arange(NODES) / (NODES - 1)) ** 2

    @cached_property
    def _each(self) -> FloatArray:
        """Sequences of one micro-batch of every ring."""
        q = self.station.micro_batches
        each = np.maximum(self.nodes / q, np.minimum(self.nodes, 1.0))
        return np.repeat(each, _RINGS)

    @cached_property
    def _run(self) -> tuple[RingStates, FloatArray]:
        station, q = self.station, self.station.micro_batches
        law, whole, chunk = station.law, station.whole, float(station.chunk_tokens)
        quiet = law.alpha_s + law.kappa_s * self._each
        through = whole.alpha_s + whole.kappa_s * self._each
        gap = np.maximum(quiet, through / q)
        steps, kept_from = self._steps
        draws = _draws(steps)
        sums = PromptSums.of(self.lengths.prompt)
        # start with laps as long as prompts will make them, not with empty ones
        work = self.rate_per_s * self.lengths.prompt.mean * whole.beta_s
        slow = 1.0 / (1.0 - min(0.7 * work, 0.85))
        ends = [(through - (q - k) * gap) * slow for k in range(q)]
        last_end = ends[0]
        own, waiting = quiet * slow, np.zeros_like(quiet)
        kept: list[tuple[FloatArray, ...]] = []
        carried, bubbles = np.zeros_like(quiet), np.zeros_like(quiet)
        # times are relative to the start of the latest micro-batch
        for step in range(steps):
            start = np.maximum(own, ends[0])
            if step >= kept_from:
                kept.append((waiting, start, ends[-1] - start, ends[-1] - last_end))
            if step >= kept_from:
                bubbles += start - own
                carried += np.minimum(waiting, chunk)
            left = np.maximum(waiting - chunk, 0.0)
            draw = draws[step]
            counts = count_quantile(
                self.rate_per_s * start, draw.arrivals, draw.arrivals_normal, self.ca2
            )
            waiting = left + sums.tokens(counts, draw.size)
            if self.station.role == "prefill":
                idle = waiting <= 0.0
                start = start + np.where(idle, self._idle_s(start, draw.arrivals), 0.0)
                lone = sums.tokens(np.ones(len(idle), np.int64), draw.size)
                waiting = np.where(idle, lone, waiting)
            tokens = np.minimum(waiting, chunk)
            own = quiet + law.beta_s * tokens
            end = np.maximum(through + whole.beta_s * tokens, ends[-1] - start + own)
            last_end = ends[0] - start
            ends = [*(e - start for e in ends[1:]), end]
        states = self._states(kept)
        if self.station.role == "prefill":
            return states, np.zeros(NODES)
        return states, self._ratio(bubbles, carried, gap - quiet)

    def _idle_s(self, gap_s: FloatArray, share: FloatArray) -> FloatArray:
        """Exponential wait for the next prompt.

        That none came means a share below exp(-rate gap), within which it is uniform.
        """
        even = np.minimum(
            share * np.exp(np.minimum(self.rate_per_s * gap_s, 600.0)), 1 - 1e-12
        )
        found: FloatArray = -np.log1p(-even) / self.rate_per_s
        return found

    @property
    def _steps(self) -> tuple[int, int]:
        """Steps in all, and the first that counts: the last three in eight."""
        steps = max(_LEAST_LAPS * self.station.micro_batches, _LEAST_STEPS)
        return steps, steps * 5 // 8

    def _states(self, kept: list[tuple[FloatArray, ...]]) -> RingStates:
        columns = (np.array(c) for c in zip(*kept, strict=True))
        shaped = [
            c.reshape(-1, NODES, _RINGS).transpose(0, 2, 1).reshape(-1, NODES)
            for c in columns
        ]
        return RingStates(*shaped)

    def _ratio(
        self, bubbles: FloatArray, carried: FloatArray, quiet_bubble: FloatArray
    ) -> FloatArray:
        """Bubble seconds per prompt token at every node, smoothed over the nodes."""
        steps, kept_from = self._steps
        extra = (bubbles - quiet_bubble * (steps - kept_from)).reshape(NODES, _RINGS)
        tokens = carried.reshape(NODES, _RINGS).sum(axis=1)
        ratio = extra.sum(axis=1) / np.maximum(tokens, 1e-9)
        at = self.nodes / max(self.nodes[-1], 1.0)
        fit = np.polynomial.Polynomial.fit(at, ratio, 3, w=np.sqrt(tokens + 1e-9))
        found: FloatArray = np.maximum(fit(at), 0.0)
        return found

    @property
    def states(self) -> RingStates:
        """States that a request may find."""
        return self._run[0]

    def bubble_s_per_token(self, sequences: FloatArray) -> FloatArray:
        """Idle time of the bottleneck that a prompt token causes."""
        return np.interp(sequences, self.nodes, self._run[1])
