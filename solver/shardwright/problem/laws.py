"""Iteration laws of stages: alpha + kappa * sequences + beta * prompt tokens.

Percentiles need the time of an iteration at any load, not at the balanced one alone.
The slopes are chords of the cost model (docs/cost-model.md section 12): kappa between
one decoding sequence and a full micro-batch, beta between that and a full chunk beside
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.memory import ROLES
from shardwright.cost.times import Load, hop_ns
from shardwright.problem.costing import StageCosts
from shardwright.problem.types import Point, Unit

FloatArray = NDArray[np.float64]

_FAR_TOKENS = 1e6


@dataclass(frozen=True, eq=False)
class LawTables:
    """Seconds; the first axis holds alpha, kappa and beta.

    Shapes: layer (3, o, u, g), role (3, o, u, r), hop_intra (3, k), hop_inter
    (3, k, k), with the indices of ``Tables``; ``return_s`` is the tokens' way back.
    """

    layer: FloatArray
    role: FloatArray
    hop_intra: FloatArray
    hop_inter: FloatArray
    return_s: float


def law_tables(
    costs: StageCosts,
    units: Sequence[Unit],
    points: Sequence[Point],
    return_ns: int,
) -> LawTables:
    """The laws of every point, unit, layer kind and role."""
    kinds = len(costs.instance.model.layer_kinds)
    layer = np.zeros((3, len(points), len(units), kinds))
    role = np.zeros((3, len(points), len(units), len(ROLES)))
    loads = _Loads.of(points)
    for u, unit in enumerate(units):
        clock, on = costs.clock(unit), loads.on(unit)
        for g, rank in enumerate(costs.ranks(unit.shape)):
            times = [clock.layer(rank, load)[0] for load in on]
            layer[:, :, u, g] = loads.chords(times)
        for r in range(len(ROLES)):
            times = [clock.stage_constant(r, load)[0] for load in on]
            role[:, :, u, r] = loads.chords(times)
    intra, inter = _hops(costs)
    return LawTables(layer, role, intra, inter, return_ns * 1e-9)


@dataclass(frozen=True, eq=False)
class _Loads:
    """Sequences of a full micro-batch (at least 2) and tokens of a chunk, per point."""

    full: FloatArray
    chunk: FloatArray
    decodes: NDArray[np.bool_]

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Loads:
        return cls(
            np.array([max(2, p.micro_batch) for p in points], dtype=np.float64),
            np.array([p.chunk_tokens for p in points], dtype=np.float64),
            np.array([p.role != "prefill" for p in points]),
        )

    def on(self, unit: Unit) -> list[Load]:
        """One sequence, a full micro-batch, and the same with a chunk beside it.

        A replica without decodes: no tokens at all, one token, a chunk.
        """
        dp, none = unit.shape.attn_dp, np.zeros_like(self.chunk)
        one = np.where(self.decodes, 1.0, 0.0)
        full = np.where(self.decodes, self.full, 0.0)
        return [
            Load.lone_chunk(one, none, dp),
            Load.lone_chunk(full, none, dp),
            Load.lone_chunk(full, self.chunk, dp),
        ]

    def chords(self, times_ns: Sequence[NDArray[np.int64]]) -> FloatArray:
        """alpha, kappa and beta (3, o) through the three times."""
        one, full, chunk = (t * 1e-9 for t in times_ns)
        kappa = np.where(self.decodes, (full - one) / (self.full - 1), 0.0)
        beta = np.divide(
            chunk - full,
            self.chunk,
            out=np.zeros_like(full),
            where=self.chunk > 0,
        )
        return np.stack([one - kappa, np.maximum(kappa, 0), np.maximum(beta, 0)])


def _hops(costs: StageCosts) -> tuple[FloatArray, FloatArray]:
    """Latency, and time per token whether decoded or prompt."""
    instance = costs.instance
    gpus = [instance.cluster.gpu_types[name] for name in costs.class_names]
    n = len(gpus)
    intra, inter = np.zeros((3, n)), np.zeros((3, n, n))
    at = np.array([0.0, _FAR_TOKENS])

    def law(a: int, b: int, inside: bool) -> FloatArray:
        hop = hop_ns(instance.model, instance.precision, gpus[a], gpus[b], inside)
        start, far = hop(at) * 1e-9
        slope = (far - start) / _FAR_TOKENS
        return np.array([start, slope, slope])

    for a in range(n):
        intra[:, a] = law(a, a, True)
        for b in range(n):
            inter[:, a, b] = law(a, b, False)
    return intra, inter
