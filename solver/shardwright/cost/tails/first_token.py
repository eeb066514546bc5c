"""Time to first token of a tagged request, at every point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.tails.laps import Laps
from shardwright.cost.tails.load import Load
from shardwright.cost.tails.normal import erlang_at
from shardwright.cost.tails.points import Axis, BoolArray, FloatArray, coordinates


@dataclass(frozen=True, eq=False)
class Ride:
    """How the chunks go that a prompt rides on.

    ``full`` chunks before the one with its last token, which carries ``last`` tokens
    and ``others`` prompts besides; ``left`` tokens stay behind. ``queued`` of the full
    chunks carry nothing of the prompt.
    """

    full: FloatArray
    last: FloatArray
    left: FloatArray
    others: FloatArray
    queued: FloatArray


@dataclass(frozen=True, eq=False)
class FirstToken:
    """The request meets an iteration in progress (longer ones more often), waits for
    its end, then for the prompts ahead of it, chunk by chunk, and rides the last chunk
    together with what came behind it.
    """

    load: Load
    laps: Laps

    @cached_property
    def admitted(self) -> BoolArray:
        """Whether a slot is free at arrival."""
        if self.load.station.role == "prefill":
            return np.ones(len(self.load.present), dtype=bool)
        return self.load.present < self.load.station.slots

    @cached_property
    def _few(self) -> BoolArray:
        """Where fewer requests than micro-batches are there: one is free at once."""
        q = self.load.station.micro_batches
        mixed = self.load.station.role != "prefill"
        return (self.load.present < q) & (q > 1) & mixed

    @cached_property
    def _idle_s(self) -> FloatArray:
        """Mean idle time of a prefill station behind the latest micro-batch."""
        load, laps = self.load, self.laps
        if load.station.role != "prefill":
            return np.zeros_like(laps.gap_s)
        if load.pace.rings is None:
            # the chain has idling as a state of its own
            return np.where(laps.backlog > 0, 0.0, 1.0 / load.rate_per_s)
        none = np.exp(-load.rate_per_s * laps.gap_s) / load.rate_per_s
        return np.where(laps.backlog > laps.chunk, 0.0, none)

    @cached_property
    def _gap_s(self) -> FloatArray:
        """The gap that a request may have to see the end of."""
        laps, station = self.laps, self.load.station
        gap = np.where(self._few, laps.own_s, laps.gap_s)
        if station.role == "prefill" and self.load.pace.rings is None:
            return np.where(laps.backlog > 0, gap, 0.0)
        return gap

    @cached_property
    def active(self) -> FloatArray:
        """Chance that the first stage is at work, or waits for its turn."""
        gap = self._gap_s
        if self.load.station.role == "prefill":
            return gap / (gap + self._idle_s)
        few = self.load.present * gap / np.maximum(self.laps.pass_s, 1e-300)
        q = self.load.station.micro_batches
        found = np.where(self._few, few, 1.0) if q > 1 else self.load.present
        return np.minimum(found, 1.0)

    @cached_property
    def weights(self) -> FloatArray:
        """How often a request meets the state: gaps count by their length."""
        station = self.load.station
        if station.role == "decode":
            return np.ones_like(self.load.present)
        if station.role == "prefill":
            return self._gap_s + self._idle_s
        mean = self.load.pace.lap_s(self.load.batch) / station.micro_batches
        found: FloatArray = self.laps.gap_s / mean
        return found

    @cached_property
    def _idle(self) -> BoolArray:
        return coordinates(Axis.RESIDUAL) >= self.active

    @cached_property
    def residual_s(self) -> FloatArray:
        """From arrival to the next start."""
        u = coordinates(Axis.RESIDUAL) / np.maximum(self.active, 1e-12)
        waits = ~self._idle & self.admitted
        return np.where(waits, (1.0 - u) * self._gap_s, 0.0)

    @cached_property
    def slot_wait_s(self) -> FloatArray:
        """Wait for a slot: as many departures as requests wait, plus one."""
        if self.load.station.role == "prefill" or self.admitted.all():
            return np.zeros_like(self.load.present)
        ahead = np.maximum(self.load.present - self.load.station.slots + 1, 1.0)
        per_s = self.load.occupancy.departures_per_s[-1]
        waits = erlang_at(ahead, Axis.SLOT) / per_s
        return np.where(self.admitted, 0.0, waits)

    @cached_property
    def seconds(self) -> FloatArray:
        """Arrival to first token."""
        station = self.load.station
        waits = self.residual_s + self.slot_wait_s
        if station.role == "decode":
            return waits
        return waits + self._prompt_s + station.first_token_extra_s

    @cached_property
    def prefill_seconds(self) -> FloatArray:
        """From the first iteration with some of the prompt to its first token."""
        station = self.load.station
        if station.role == "decode":
            return np.zeros_like(self.load.present)
        queued = np.minimum(self.ride.queued, self.ride.full) * self.laps.full_gap_s
        extra = 0.0 if station.role == "prefill" else station.first_token_extra_s
        return self._prompt_s - queued + extra

    @cached_property
    def ride(self) -> Ride:
        """How the prompt is taken in."""
        laps, gap, chunk = self.laps, self.laps.gap_s, self.laps.chunk
        apart = self._idle | self._few
        past = np.where(apart, 0.0, np.maximum(gap - self.residual_s, 0.0))
        left = np.where(apart, 0.0, laps.backlog - laps.current)
        before = self.load.tokens_within(past, Axis.AHEAD, Axis.AHEAD_SIZE)
        mates = self.load.mates
        own = self.load.lengths.prompt.at(Axis.PROMPT)
        ahead = left + before + mates[0]
        mine = ahead + own
        full = np.ceil(mine / chunk - 1e-9) - 1
        meanwhile = self.residual_s + full * laps.full_gap_s
        behind = self.load.tokens_within(meanwhile, Axis.BEHIND, Axis.BEHIND_SIZE)
        behind = behind + mates[1]
        rest = mine - full * chunk
        last = np.minimum(chunk, rest + behind)
        others = (last - np.minimum(rest, own)) / self.load.lengths.prompt.mean
        queued = np.floor(ahead / chunk + 1e-9)
        return Ride(full, last, rest + behind - last, others, queued)

    @cached_property
    def _prompt_s(self) -> FloatArray:
        """From the next start to the end of the iteration with the last token."""
        ride, laps = self.ride, self.laps
        waited = ride.full * laps.full_gap_s
        since = -np.log1p(-coordinates(Axis.SLOT)) / self.load.rate_per_s
        since = np.where(self._idle, since, 0.0)
        return waited + laps.through_s(ride.last, ride.full > 0, since)

    @cached_property
    def last_gap_s(self) -> FloatArray:
        """Time in which prompts come that start right after its own last chunk.

        From the start of that chunk's iteration; in a pipeline, from when the bubble
        behind it begins.
        """
        station = self.load.station
        beta = max(station.law.beta_s, station.rest.beta_s)
        found: FloatArray = self.laps.quiet_s + beta * self.ride.last
        return found
