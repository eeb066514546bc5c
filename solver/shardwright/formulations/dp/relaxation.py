"""Lower bounds on the TPOT of many mixed compositions at many points at once.

Relaxed: which stage is first and last, the order of stages and of layers, whole
numbers where layers differ in kind, and the prefill budget. Kept: how many stages of
each unit, stage times against TPOT/q, memory, the sum S with its least hops.

For kinds g with reference costs w_g, a unit u does at most w-work
(T - d_u) * max_g(w_g / a_ug) in time T, and w-work costs it at least
1 / max_g(w_g / a_ug) per unit; one kind is the special case of whole layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.memory import FIRST, LAST, MIDDLE
from shardwright.problem import IntArray, Problem

FloatArray = NDArray[np.float64]

_ITERATIONS = 30
_SAFETY = 1e-9
_TINY = 1e-6
"""Added to rooms (ns, bytes), so that work of no cost always finds room."""


@dataclass(frozen=True)
class Compositions:
    """n compositions with at most J distinct units each.

    units, stages (n, J): unit indices and how many stages of each (0: padding);
    parts (n, K): islands per class.
    """

    units: IntArray
    stages: FloatArray
    parts: FloatArray


@dataclass(frozen=True)
class _Pairs:
    """N pairs of a composition and a point; units sorted by cost per work.

    Shapes: stages, decode, room, stage_ns (N, J); fixed, total, q (N).
    """

    stages: FloatArray
    decode: FloatArray
    room: FloatArray
    stage_ns: FloatArray
    fixed: FloatArray
    total: FloatArray
    q: FloatArray
    whole: bool

    def only(self, keep: NDArray[np.bool_]) -> _Pairs:
        """The pairs of a mask."""
        return _Pairs(
            self.stages[keep],
            self.decode[keep],
            self.room[keep],
            self.stage_ns[keep],
            self.fixed[keep],
            self.total[keep],
            self.q[keep],
            self.whole,
        )


def tpot_lower_bounds(
    problem: Problem, some: Compositions, points: Sequence[int]
) -> IntArray:
    """Lower bounds on TPOT (P, n), ns; -1 where no design can exist."""
    at = np.asarray(points, dtype=np.int64)
    pairs = _pairs(problem, some, at)
    size = some.stages.shape[0]
    limits = [problem.tpot_limit_ns(o) for o in points]
    top = np.where(
        [limit is None for limit in limits],
        _largest(problem, at),
        np.array([limit or 0 for limit in limits], dtype=np.float64),
    ).repeat(size)
    possible = _feasible(pairs, top)
    pairs, high = pairs.only(possible), top[possible]
    low = np.zeros_like(high)
    for _ in range(_ITERATIONS):
        middle = (low + high) / 2
        fits = _feasible(pairs, middle)
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    bounds = np.full(top.shape, -1, dtype=np.int64)
    bounds[possible] = np.maximum(1, np.floor(low * (1 - _SAFETY))).astype(np.int64)
    return bounds.reshape(len(at), size)


def _pairs(problem: Problem, some: Compositions, at: IntArray) -> _Pairs:
    t = problem.tables
    counts = problem.kind_prefix[-1].astype(np.float64)
    used = counts > 0
    decode = t.decode_layer[at][:, :, used].astype(np.float64)
    whole = int(used.sum()) == 1
    weights = np.ones((len(at), 1, decode.shape[2]))
    if not whole:
        weights = np.maximum(decode.mean(axis=1, keepdims=True), 1e-9)
    per_work = _per_work(decode, weights)
    room = _memory_room(problem, at, used, weights)
    role = t.decode_role[at].astype(np.float64)
    absent = some.stages == 0
    cost = np.where(absent, np.inf, per_work[:, some.units])
    order = np.argsort(cost, axis=2, kind="stable")
    shape = cost.shape

    def by_cost(values: FloatArray) -> FloatArray:
        chosen = np.take_along_axis(np.broadcast_to(values, shape), order, axis=2)
        return chosen.reshape(-1, shape[2])

    size = shape[1]
    return _Pairs(
        stages=by_cost(some.stages[None]),
        decode=by_cost(per_work[:, some.units]),
        room=by_cost(room[:, some.units]),
        stage_ns=by_cost(role[:, some.units, MIDDLE]),
        fixed=_fixed_loop(problem, some, at, role).ravel(),
        total=np.repeat(weights[:, 0, :] @ counts[used], size),
        q=np.repeat([float(problem.points[o].micro_batches) for o in at], size),
        whole=whole,
    )


def _per_work(cost: FloatArray, weights: FloatArray) -> FloatArray:
    """Least cost of one unit of work on every unit (P, U)."""
    least: FloatArray = np.min(np.maximum(cost, 1e-12) / weights, axis=2)
    return least


def _memory_room(
    problem: Problem, at: IntArray, used: NDArray[np.bool_], weights: FloatArray
) -> FloatArray:
    """Work that the memory of a unit has room for (P, U); -1 for none."""
    least = np.full((len(at), len(problem.units)), np.inf)
    if not problem.bounds.memory_fits:
        return least
    capacity = np.array(
        [problem.classes[u.gpu_class].capacity_bytes for u in problem.units],
        dtype=np.float64,
    )
    for row in problem.memory_rows:
        room = capacity - row.role[at][:, :, MIDDLE]
        per_work = _per_work(row.layer[at][:, :, used].astype(np.float64), weights)
        work = np.where(room < 0, -1.0, (room + _TINY) / per_work)
        least = np.minimum(least, work)
    return least


def _fixed_loop(
    problem: Problem, some: Compositions, at: IntArray, role: FloatArray
) -> FloatArray:
    """S without its layers (P, n): stage constants, end roles, hops, return."""
    t = problem.tables
    absent = some.stages[None] == 0
    middle = role[:, some.units, MIDDLE]
    fixed = (middle * some.stages[None]).sum(axis=2) + t.return_ns
    for r in (FIRST, LAST):
        extra = role[:, some.units, r] - middle
        fixed = fixed + np.where(absent, np.inf, extra).min(axis=2)
    hops = _least_hops(problem, some, t.hop_intra[at], t.hop_inter[at])
    total: FloatArray = fixed + hops
    return total


def _least_hops(
    problem: Problem, some: Compositions, intra: IntArray, inter: IntArray
) -> FloatArray:
    unit_class = np.array([u.gpu_class for u in problem.units])[some.units]
    classes = range(some.parts.shape[1])
    per_class = np.stack(
        [(some.stages * (unit_class == k)).sum(axis=1) for k in classes], axis=1
    )
    inside = intra.astype(np.float64) @ (per_class - some.parts).T
    present = some.parts > 0
    linked = present[:, :, None] & present[:, None, :]
    links = np.where(linked[None], inter[:, None].astype(np.float64), np.inf)
    crossings = some.parts.sum(axis=1) - 1
    least = np.where(crossings > 0, links.min(axis=(2, 3)), 0.0)
    hops: FloatArray = inside + crossings * least
    return hops


def _largest(problem: Problem, at: IntArray) -> FloatArray:
    """A TPOT that no design exceeds (P)."""
    t = problem.tables
    layers = t.decode_layer[at].max(axis=(1, 2)) * problem.layers
    stages = t.decode_role[at].max(axis=(1, 2)) * problem.max_stages
    hop = np.maximum(t.hop_inter[at].max(axis=(1, 2)), t.hop_intra[at].max(axis=1))
    q = np.array([problem.points[o].micro_batches for o in at])
    top = q * (layers + stages) + hop * problem.max_stages + t.return_ns
    largest: FloatArray = top.astype(np.float64)
    return largest


def _feasible(pairs: _Pairs, tpot: FloatArray) -> NDArray[np.bool_]:
    """Whether the layers fit under T <= tpot/q and S <= tpot (N)."""
    stage = (tpot / pairs.q)[:, None]
    cap = np.minimum((stage - pairs.stage_ns + _TINY) / pairs.decode, pairs.room)
    cap = cap + _SAFETY
    least = 0.0
    if pairs.whole:
        cap, least = np.floor(cap), 1.0
    usable = ((pairs.stages == 0) | (cap >= least)).all(axis=1)
    base = pairs.stages * least
    room = np.maximum(pairs.stages * np.maximum(cap, 0) - base, 0)
    left = pairs.total - base.sum(axis=1)
    before = np.cumsum(room, axis=1) - room
    work = base + np.clip(np.maximum(left, 0)[:, None] - before, 0, room)
    loop = pairs.fixed + (work * pairs.decode).sum(axis=1)
    slack = _SAFETY * pairs.total
    covered = (room.sum(axis=1) >= left - slack) & (left >= -slack)
    fits: NDArray[np.bool_] = usable & covered & (loop <= tpot)
    return fits
