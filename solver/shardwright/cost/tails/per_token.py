"""Time that a tagged request decodes for, at every point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.tails.compound import PromptSums, progeny_quantile
from shardwright.cost.tails.first_token import FirstToken
from shardwright.cost.tails.lengths import Overlap
from shardwright.cost.tails.load import Load
from shardwright.cost.tails.normal import gamma_quantile, normal_at
from shardwright.cost.tails.points import Axis, FloatArray, coordinates, split


@dataclass(frozen=True, eq=False)
class PerToken:
    """A request of o steps shares iterations with those that are there and with those
    that come, for as long as both last, and is stalled by the prompts that come from
    its own last chunk on.
    """

    load: Load
    first: FirstToken

    @cached_property
    def steps(self) -> FloatArray:
        """Decode iterations of each point's request."""
        return self.load.lengths.steps.at(Axis.OUTPUT)

    @cached_property
    def _shared(self) -> Overlap:
        return self.load.lengths.overlap_at(Axis.OUTPUT)

    @cached_property
    def _line(self) -> tuple[float, float]:
        """alpha and kappa of a lap without prompts: secant over the batch."""
        pace, q = self.load.pace, self.load.station.micro_batches
        low, high = float(q), float(max(self.load.station.slots, q + 1))
        ends = q * pace.gap_s(np.array([low, high]))
        kappa = float(ends[1] - ends[0]) / (high - low)
        return float(ends[0]) - kappa * low, kappa

    @cached_property
    def seconds(self) -> FloatArray:
        """First to last token: own steps, others that are there, and arrivals."""
        station = self.load.station
        alpha, kappa = self._line
        least = self.steps * (alpha + kappa)
        arrivals, stalls = self._arrivals
        most = self.steps * kappa * max(station.slots - 1, 0)
        others = kappa * (self._present + arrivals * self._shared.later)
        variance = kappa**2 * (
            self.load.batch * _spread(self._shared.present, self._shared.present2)
            + arrivals * _spread(self._shared.later, self._shared.later2)
        )
        drawn = gamma_quantile(others, variance, normal_at(Axis.NOISE))
        drawn = np.where(others > 0, drawn, 0.0)
        return least + np.minimum(drawn, most) + stalls + self._join_s

    @cached_property
    def _join_s(self) -> FloatArray:
        """Wait for the start of the micro-batch that it joins: anywhere in its lap."""
        q = self.load.station.micro_batches
        if q == 1:
            return np.zeros_like(self.steps)
        wait = coordinates(Axis.SLOT) * self.first.laps.lap_s
        return np.where(self.load.present >= q, wait, 0.0)

    @cached_property
    def _stall(self) -> FloatArray:
        return self.load.pace.stall(self.load.batch)

    @cached_property
    def _present(self) -> FloatArray:
        """Steps shared with requests that decode already or begin together with it."""
        shared = self._shared
        found = self.load.batch * shared.present
        if self.load.station.role == "decode":
            return found
        return found + self.first.ride.others * shared.fresh

    @cached_property
    def _arrivals(self) -> tuple[FloatArray, FloatArray]:
        """How many come while it decodes, and how long their prompts stall it.

        Prompts that come from its last chunk until its last step but one are in time.
        """
        station, load, o = self.load.station, self.load, self.steps
        alpha, kappa = self._line
        share = np.where(o >= 1, 1 - 1 / np.maximum(o, 1), 0.0)
        window = o * (alpha + kappa) + kappa * self._present
        stall, before = np.zeros_like(o), np.zeros_like(o)
        if station.role != "decode":
            stall = station.law.beta_s * self._stall
            before = self.first.last_gap_s
        prompt = load.lengths.prompt
        founders = np.where(o >= 0.5, load.rate_per_s * (before + window * share), 0.0)
        if load.ca2 > 1.0:
            # how many come varies more than a Poisson number: gamma founders
            founders = gamma_quantile(
                founders, (load.ca2 - 1.0) * founders, normal_at(Axis.BURST)
            )
        each = stall * prompt.mean + kappa * self._shared.later
        children = np.minimum(load.rate_per_s * each * share, 0.98)
        counts = progeny_quantile(founders, children, Axis.STALLS)
        if station.role == "decode":
            return counts, np.zeros_like(counts)
        whole = np.rint(counts).astype(np.int64)
        tokens = PromptSums.of(prompt).tokens(whole, split(Axis.STALL_SIZE))
        most = o * station.micro_batches * station.chunk_tokens
        tokens = np.minimum(tokens + self.first.ride.left, most)
        expected = np.minimum(founders / (1 - children) * prompt.mean, most)
        marginal = load.pace.marginal_stall(load.batch) * share + self._stall * (
            1 - share
        )
        beyond = station.law.beta_s * marginal * (tokens - expected)
        held_up = np.maximum(stall * expected + beyond, station.law.beta_s * tokens)
        return counts, held_up


def _spread(mean: FloatArray, second: FloatArray) -> FloatArray:
    return (second - mean**2).clip(0.0)
