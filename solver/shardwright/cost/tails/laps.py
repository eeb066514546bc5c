"""The micro-batch that is under way when a request comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shardwright.cost.tails.load import Load
from shardwright.cost.tails.points import (
    Axis,
    BoolArray,
    FloatArray,
    IntArray,
    coordinates,
)
from shardwright.cost.tails.rings import NODES, RingStates


@dataclass(frozen=True, eq=False)
class Laps:
    """Backlog, gap to the next start and lap time at every point.

    From the backlog chain for one micro-batch, from the rings for several.
    """

    load: Load

    @cached_property
    def _shift(self) -> tuple[FloatArray, FloatArray]:
        """What a state's gap and pass lack at the point's own batch size."""
        rings, pace = self.load.pace.rings, self.load.pace
        assert rings is not None and self._ring is not None
        batch = self.load.batch
        node = rings.nodes[self._ring[2]]
        if self.load.station.role == "prefill":
            node = batch
        return pace.gap_s(batch) - pace.gap_s(node), pace.pass_s(batch) - pace.pass_s(
            node
        )

    @cached_property
    def _ring(self) -> tuple[RingStates, IntArray, IntArray] | None:
        rings = self.load.pace.rings
        if rings is None:
            return None
        states = rings.states
        row = (coordinates(Axis.BACKLOG) * len(states.gap_s)).astype(np.int64)
        if self.load.station.role == "prefill":
            # no batch: all nodes are alike
            any_node = (coordinates(Axis.DITHER) * NODES).astype(np.int64)
            return states, row, any_node
        batch = np.minimum(self.load.batch, rings.nodes[-1])
        column = np.searchsorted(rings.nodes, batch, side="right") - 1
        column = np.clip(column, 0, NODES - 2)
        width = rings.nodes[column + 1] - rings.nodes[column]
        part = (batch - rings.nodes[column]) / width
        column = column + (coordinates(Axis.DITHER) < part)
        return states, row, column

    @cached_property
    def backlog(self) -> FloatArray:
        """Waiting tokens when the latest micro-batch was formed."""
        if self.load.station.role == "decode":
            return np.zeros_like(self.load.batch)
        if self._ring is None:
            return self.load.waiting(Axis.BACKLOG)
        states, row, column = self._ring
        return states.backlog[row, column]

    @cached_property
    def chunk(self) -> float:
        """Prompt tokens of one iteration at most."""
        return float(self.load.station.chunk_tokens)

    @cached_property
    def current(self) -> FloatArray:
        """Tokens of the latest micro-batch."""
        return np.minimum(self.backlog, self.chunk)

    @cached_property
    def quiet_s(self) -> FloatArray:
        """Gap after a micro-batch without prompt tokens."""
        return self.load.pace.gap_s(self.load.batch)

    @cached_property
    def own_s(self) -> FloatArray:
        """Time of a micro-batch without prompt tokens in the bottleneck."""
        law = self.load.station.law
        found: FloatArray = law.alpha_s + law.kappa_s * self.load.pace.each(
            self.load.batch
        )
        return found

    @cached_property
    def pass_s(self) -> FloatArray:
        """Through all stages without prompt tokens."""
        return self.load.pace.pass_s(self.load.batch)

    @cached_property
    def gap_s(self) -> FloatArray:
        """From the start of the latest micro-batch to the next start."""
        if self._ring is None:
            beta = self.load.station.law.beta_s
            found: FloatArray = self.quiet_s + beta * self.current
            return found
        states, row, column = self._ring
        gap: FloatArray = states.gap_s[row, column]
        return gap + self._shift[0]

    @cached_property
    def carry_s(self) -> FloatArray:
        """From the next start until the latest micro-batch has passed all stages."""
        if self._ring is None:
            return np.zeros_like(self.gap_s)
        states, row, column = self._ring
        found: FloatArray = states.carry_s[row, column] + self._shift[1]
        return found - self._shift[0]

    @cached_property
    def lap_s(self) -> FloatArray:
        """Time that all micro-batches take once."""
        if self._ring is None:
            return self.gap_s * self.load.station.micro_batches
        states, row, column = self._ring
        found: FloatArray = states.lap_s[row, column]
        return found + self.load.station.micro_batches * self._shift[0]

    @cached_property
    def full_gap_s(self) -> FloatArray:
        """Gap after a micro-batch with a full chunk."""
        station = self.load.station
        through = self.pass_s + station.whole.beta_s * self.chunk
        own = self.own_s + station.law.beta_s * self.chunk
        return np.maximum(own, through / station.micro_batches)

    def through_s(
        self, tokens: FloatArray, behind_full: BoolArray, idle_s: FloatArray
    ) -> FloatArray:
        """From the start of the next micro-batch, with so many tokens, to its end.

        ``behind_full`` where it follows a full chunk instead of the latest one;
        ``idle_s`` since the latest one could have been followed.
        """
        station = self.load.station
        free = self.pass_s + station.whole.beta_s * tokens
        if self._ring is None:
            return free
        full = self.pass_s + station.whole.beta_s * self.chunk - self.full_gap_s
        carry = np.where(behind_full, full, self.carry_s - idle_s)
        own = self.own_s + station.law.beta_s * tokens
        return np.maximum(free, carry + own)
