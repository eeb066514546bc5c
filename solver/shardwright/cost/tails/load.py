"""A station at one arrival rate: its occupancy, and the state that each point sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.tails.backlog import Backlog, backlogs
from shardwright.cost.tails.compound import (
    PromptSums,
    burst_mates,
    count_quantile,
)
from shardwright.cost.tails.lengths import RequestLaw
from shardwright.cost.tails.normal import normal_at
from shardwright.cost.tails.occupancy import Occupancy
from shardwright.cost.tails.pace import Pace
from shardwright.cost.tails.points import Axis, FloatArray, coordinates, split
from shardwright.cost.tails.station import Station

_SHARES = np.array([0.05, 0.5, 0.99])
"""Levels of the batch size at which the backlog chain is solved."""


@dataclass(frozen=True, eq=False)
class Load:
    """Requests come at ``rate_per_s``; ``ca2`` is the squared cv of what is between."""

    station: Station
    lengths: RequestLaw
    rate_per_s: float
    ca2: float = 1.0

    @cached_property
    def pace(self) -> Pace:
        """Speed of decoding."""
        return Pace(self.station, self.lengths, self.rate_per_s, self.ca2)

    @cached_property
    def held(self) -> float:
        """Laps that a request spends in its slot, mean."""
        if self.station.role == "decode":
            return max(self.lengths.steps.mean, 1e-9)
        q = self.station.micro_batches
        joining = 0.0 if q == 1 else 0.5
        return self.lengths.steps.mean + (self.chunks - 1) / q + 1 + joining

    @cached_property
    def chunks(self) -> float:
        """Prefill iterations of a request, mean."""
        return self.lengths.prompt.chunks(self.station.chunk_tokens)

    @cached_property
    def utilisation(self) -> float:
        """Share of capacity that the rate takes; 1 and more is not stable."""
        station, rate = self.station, self.rate_per_s
        if station.role == "prefill":
            return rate / station.capacity_per_s(self.lengths)
        slots = float(station.slots)
        free = station.micro_batches * station.gap_s(slots)
        share = self.pace.work * float(self.pace.stall(np.array([slots]))[0])
        by_slots = rate * self.held * free / slots + share
        if station.role == "decode":
            return by_slots
        return max(by_slots, rate / station.by_chunks_per_s(self.lengths))

    @cached_property
    def stable(self) -> bool:
        """Whether requests can leave as fast as they come."""
        return self.pace.work < 1 and self.utilisation < 1

    @cached_property
    def occupancy(self) -> Occupancy:
        """Requests in the station."""
        batch = np.arange(1, self.station.slots + 1, dtype=np.float64)
        departures = batch / (self.held * self.pace.lap_s(batch))
        stall = float(self.pace.marginal_stall(batch[:1])[0])
        busy = min(self.pace.work * stall, 0.95)
        prompt = self.lengths.prompt
        uneven = busy**2 * (prompt.second / prompt.mean**2 - 1)
        spread = ((self.ca2 + uneven) / (1 - busy) ** 2 + 1) / 2
        # a full station forgets slowly how it came to be full: between both laws
        queue = (3 * spread + (self.ca2 + self._uneven_work) / 2) / 4
        return Occupancy.of(self.rate_per_s, departures, spread, queue)

    @cached_property
    def _uneven_work(self) -> float:
        """Squared cv of the time that a request takes from a station with full slots.

        It is the prompt's own time, and its steps' share of a full batch.
        """
        prompt, steps = self.lengths.prompt, self.lengths.steps
        slots = float(self.station.slots)
        step = self.station.micro_batches * self.station.gap_s(slots) / slots
        each = 0.0 if self.station.role == "decode" else self.station.law.beta_s
        mean = each * prompt.mean + step * steps.mean
        variance = each**2 * (prompt.second - prompt.mean**2)
        variance += step**2 * (steps.second - steps.mean**2)
        return max(variance / max(mean, 1e-30) ** 2, 0.05)

    @cached_property
    def slots_full(self) -> float:
        """P(every slot is taken)."""
        if self.station.role == "prefill":
            return 0.0
        return self.occupancy.at_least(self.station.slots)

    @cached_property
    def present(self) -> FloatArray:
        """Requests that each point finds in the station."""
        if self.station.role == "prefill":
            return np.zeros_like(coordinates(Axis.OCCUPANCY))
        return self.occupancy.quantiles(coordinates(Axis.OCCUPANCY))

    @cached_property
    def batch(self) -> FloatArray:
        """Sequences that decode beside each point's request."""
        decoding = self.lengths.steps.mean / self.held
        return np.minimum(self.present, self.station.slots - 1) * decoding

    @cached_property
    def mean_batch(self) -> float:
        """Decoding sequences, mean over time."""
        if self.station.role == "prefill":
            return 0.0
        occupied = np.arange(len(self.occupancy.probabilities))
        busy = np.minimum(occupied, self.station.slots)
        decoding = self.lengths.steps.mean / self.held
        return float(self.occupancy.probabilities @ busy) * decoding

    @cached_property
    def backlog(self) -> Backlog:
        """Prompt tokens that wait at the start of an iteration."""
        nodes = np.unique(np.quantile(self.batch, _SHARES))
        return backlogs(
            self.rate_per_s,
            self.lengths.prompt,
            nodes,
            self.pace.gap_s(nodes),
            self.station.law.beta_s,
            float(self.station.chunk_tokens),
            idles=self.station.role == "prefill",
            ca2=self.ca2,
        )

    def waiting(self, axis: Axis) -> FloatArray:
        """Backlog of each point, one independent draw per axis."""
        return self.backlog.at(self.batch, coordinates(axis), coordinates(Axis.DITHER))

    def tokens_within(self, seconds: FloatArray, count: Axis, size: Axis) -> FloatArray:
        """Prompt tokens that come within each point's time."""
        means = self.rate_per_s * seconds
        counts = count_quantile(means, coordinates(count), normal_at(count), self.ca2)
        return PromptSums.of(self.lengths.prompt).tokens(counts, split(size))

    @cached_property
    def mates(self) -> tuple[FloatArray, FloatArray]:
        """Prompt tokens of the same burst, ahead of each point's request and behind."""
        sums = PromptSums.of(self.lengths.prompt)
        ahead, behind = burst_mates(self.ca2)
        return (
            sums.tokens(ahead, split(Axis.AHEAD_SIZE)),
            sums.tokens(behind, split(Axis.BEHIND_SIZE)),
        )
