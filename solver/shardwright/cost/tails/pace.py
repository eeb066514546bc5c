"""How fast a batch decodes, and how long prompts hold it up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.tails.lengths import RequestLaw
from shardwright.cost.tails.points import FloatArray
from shardwright.cost.tails.rings import Rings
from shardwright.cost.tails.station import Station


@dataclass(frozen=True, eq=False)
class Pace:
    """Mean seconds of a lap (all micro-batches once) for b decoding sequences."""

    station: Station
    lengths: RequestLaw
    rate_per_s: float
    ca2: float = 1.0

    @cached_property
    def work(self) -> float:
        """Share of the bottleneck's time that prompts take."""
        if self.station.role == "decode":
            return 0.0
        return self.rate_per_s * self.lengths.prompt.mean * self.station.law.beta_s

    @cached_property
    def rings(self) -> Rings | None:
        """The pipeline's recursion; None where nothing goes round."""
        station = self.station
        if station.role == "decode" or station.micro_batches == 1:
            return None
        return Rings(station, self.lengths, self.rate_per_s, self.ca2)

    def each(self, sequences: FloatArray) -> FloatArray:
        """Sequences of one micro-batch; a lone one is not split."""
        q = self.station.micro_batches
        return np.maximum(sequences / q, np.minimum(sequences, 1.0))

    def gap_s(self, sequences: FloatArray) -> FloatArray:
        """Seconds between micro-batches that carry no prompt tokens."""
        each, law = self.each(sequences), self.station.law
        bottleneck = law.alpha_s + law.kappa_s * each
        return np.maximum(
            bottleneck, self.pass_s(sequences) / self.station.micro_batches
        )

    def pass_s(self, sequences: FloatArray) -> FloatArray:
        """Through all stages without prompt tokens."""
        whole = self.station.whole
        found: FloatArray = whole.alpha_s + whole.kappa_s * self.each(sequences)
        return found

    def stall(self, sequences: FloatArray) -> FloatArray:
        """Hold-up of decodes by a prompt over its time in the bottleneck: 1 or more."""
        if self.rings is None or self.work <= 0:
            return np.ones_like(sequences)
        extra = self.rings.bubble_s_per_token(sequences)
        return 1.0 + extra / self.station.law.beta_s

    def marginal_stall(self, sequences: FloatArray) -> FloatArray:
        """Hold-up by one prompt more: prompts that come together share their bubbles.

        With chance p of a prompt in a micro-batch of q a lap has the hold-up
        c = q p/(1 + p (q - 1)), whose derivative is (c/p)^2/q: the
        mean squared over that of a lone prompt.
        """
        mean = self.stall(sequences)
        lone = self.station.whole.beta_s / max(self.station.law.beta_s, 1e-300)
        found: FloatArray = np.maximum(mean**2 / max(lone, 1.0), 1.0)
        return found

    def lap_s(self, sequences: FloatArray) -> FloatArray:
        """Mean lap under load."""
        free = self.station.micro_batches * self.gap_s(sequences)
        busy = np.minimum(self.work * self.stall(sequences), 0.999)
        found: FloatArray = free / (1.0 - busy)
        return found
