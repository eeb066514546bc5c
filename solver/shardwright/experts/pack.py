"""Putting copies on GPUs: batched construction and pairwise exchange, no Python loop
over layers.

A packing is an array of expert ids [B, G, S] with the value (tokens) of each copy
[B, G, S] beside it; the load of a GPU is the sum over its S slots. All rows of a batch
share G and S and differ in everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .replicate import Floats, Ints

Bools = NDArray[np.bool_]
_DIVIDE_UP_TO = 5
_CHUNK = 250_000  # products per matrix product: below what BLAS gives to threads
_EPS = 1e-12
_Divide = Callable[[Ints, Floats, bool], tuple[Ints, Bools]]


@dataclass(frozen=True)
class Packing:
    """Expert ids [B, G, S] and copy values [B, G, S]; rows are independent."""

    expert: Ints
    value: Floats

    @property
    def load(self) -> Floats:
        """Tokens per GPU, [B, G]."""
        load: Floats = self.value.sum(axis=2)
        return load

    @property
    def top(self) -> Floats:
        """Tokens on the busiest GPU, [B]."""
        top: Floats = self.load.max(axis=1)
        return top

    def rows(self, pick: Ints | Bools) -> Packing:
        """The packing of some rows (a copy)."""
        return Packing(self.expert[pick], self.value[pick])


def copies_in_order(
    load: Floats, counts: Ints, blur: Floats | None = None
) -> tuple[Ints, Floats]:
    """All copies of a row, heaviest first: expert ids and values, both [B, P].

    `blur` [B, E] scales the sort key only (restarts from another order).
    """
    share = load / counts
    key = -share if blur is None else -share * blur
    order = np.argsort(key, axis=1, kind="stable")
    repeat = np.take_along_axis(counts, order, axis=1).ravel()
    rows = load.shape[0]
    ids = np.repeat(order.ravel(), repeat).reshape(rows, -1)
    values = np.repeat(np.take_along_axis(share, order, axis=1).ravel(), repeat)
    return ids, values.reshape(rows, -1)


def deal(
    load: Floats,
    counts: Ints,
    gpus: int,
    distinct: bool,
    blur: Floats | None = None,
) -> Packing:
    """S rounds; in each, the heaviest copy left goes to the lightest GPU, and so on.

    With `distinct`, copies of an expert that spill from one round into the next avoid
    the GPUs that already hold it (always possible while r_e <= G).
    """
    ids, values = copies_in_order(load, counts, blur)
    rows, slots = ids.shape
    per_gpu = slots // gpus
    expert = np.empty((rows, gpus, per_gpu), dtype=np.int64)
    value = np.empty((rows, gpus, per_gpu))
    total = np.zeros((rows, gpus))
    index = np.arange(rows)[:, None]
    for k in range(per_gpu):
        part = slice(k * gpus, (k + 1) * gpus)
        seats = np.argsort(total, axis=1, kind="stable")
        if distinct and k:
            seats = _avoid_spill(seats, expert[:, :, k - 1], ids[:, part])
        expert[index, seats, k] = ids[:, part]
        value[index, seats, k] = values[:, part]
        total[index, seats] += values[:, part]
    return Packing(expert, value)


def _avoid_spill(seats: Ints, before: Ints, items: Ints) -> Ints:
    """Reorder seats so that leading items equal to the last round's tail move away."""
    spill = (items == items[:, :1]) & (before == items[:, :1]).any(axis=1)[:, None]
    need = spill.sum(axis=1)
    if not need.any():
        return seats
    free = np.take_along_axis(before, seats, axis=1) != items[:, :1]
    first = free & (np.cumsum(free, axis=1) <= need[:, None])
    order = np.argsort(~first, axis=1, kind="stable")
    return np.where(need[:, None] > 0, np.take_along_axis(seats, order, axis=1), seats)


def longest_first(load: Floats, counts: Ints, gpus: int) -> Packing:
    """Each copy, heaviest first, to the lightest GPU that has a slot left (LPT)."""
    ids, values = copies_in_order(load, counts)
    rows, slots = ids.shape
    per_gpu = slots // gpus
    expert = np.empty((rows, gpus, per_gpu), dtype=np.int64)
    value = np.empty((rows, gpus, per_gpu))
    open_load = np.zeros((rows, gpus))
    used = np.zeros((rows, gpus), dtype=np.int64)
    index = np.arange(rows)
    for i in range(slots):
        gpu = open_load.argmin(axis=1)
        slot = used[index, gpu]
        expert[index, gpu, slot] = ids[:, i]
        value[index, gpu, slot] = values[:, i]
        used[index, gpu] = slot + 1
        open_load[index, gpu] += np.where(slot + 1 == per_gpu, np.inf, values[:, i])
    return Packing(expert, value)


def exchange(start: Packing, target: Floats, distinct: bool, rounds: int) -> Packing:
    """Improve every row until its busiest GPU is at `target` [B] or nothing helps.

    A round sorts the GPUs by load, pairs heavy with light ones and redivides the
    copies of each pair whose heavy GPU is above the target: by the best of all
    divisions up to 5 slots, else by the best single swap. Pairs are shifted when a
    round brings a row nothing. Never worse than the start.
    """
    expert, value = start.expert.copy(), start.value.copy()
    state = Packing(expert, value)
    if expert.shape[2] == 1 or expert.shape[1] == 1:
        return state
    few = expert.shape[2] <= _DIVIDE_UP_TO
    _run(state, target, distinct, rounds, _best_division if few else _best_swap)
    return state


def _run(
    state: Packing, target: Floats, distinct: bool, rounds: int, divide: _Divide
) -> None:
    """Rounds of one kind of redivision, in place."""
    expert, value = state.expert, state.value
    gpus = expert.shape[1]
    half = gpus // 2
    load = value.sum(axis=2)
    idle = np.zeros(expert.shape[0], dtype=np.int64)
    for _ in range(rounds):
        live = np.flatnonzero((load.max(axis=1) > target) & (idle < half))
        if live.size == 0:
            break
        order = np.argsort(-load[live], axis=1)
        light = order[:, gpus - half :][:, ::-1]
        spin = (np.arange(half)[None, :] + idle[live][:, None]) % half
        light = np.take_along_axis(light, spin, axis=1)
        over = np.take_along_axis(load[live], order[:, :half], axis=1)
        at, k = np.nonzero(over > target[live][:, None])
        row, pair = live[at], (order[at, k], light[at, k])
        better = _redivide(state, row, pair, distinct, divide)
        idle[live] += 1
        idle[row[better]] = 0
        for gpu in pair:
            load[row, gpu] = value[row, gpu].sum(axis=1)


def _redivide(
    state: Packing,
    row: Ints,
    pair: tuple[Ints, Ints],
    distinct: bool,
    divide: _Divide,
) -> Bools:
    """Redivide each (row, heavy, light) in place; True where the heavy one gained."""
    expert, value = state.expert, state.value
    heavy, light = pair
    ids = np.concatenate([expert[row, heavy], expert[row, light]], axis=1)
    vals = np.concatenate([value[row, heavy], value[row, light]], axis=1)
    per_gpu = expert.shape[2]
    seat, better = divide(ids, vals, distinct)
    ids = np.take_along_axis(ids, seat, axis=1)
    vals = np.take_along_axis(vals, seat, axis=1)
    expert[row, heavy], expert[row, light] = ids[:, :per_gpu], ids[:, per_gpu:]
    value[row, heavy], value[row, light] = vals[:, :per_gpu], vals[:, per_gpu:]
    return better


def _best_swap(ids: Ints, vals: Floats, distinct: bool) -> tuple[Ints, Bools]:
    """Seats [X, 2S] after the best single swap in each of X pairs, and if it helps."""
    half = ids.shape[1] // 2
    a, b = vals[:, :half], vals[:, half:]
    gap = a.sum(axis=1) - b.sum(axis=1)
    miss = (a - gap[:, None] / 2)[:, :, None] - b[:, None, :]
    np.abs(miss, out=miss)
    if distinct:
        same = ids[:, :half, None] == ids[:, None, half:]
        if same.any():
            miss[same.any(axis=2)] = np.inf
            np.swapaxes(miss, 1, 2)[same.any(axis=1)] = np.inf
    flat = miss.reshape(gap.size, -1)
    best = flat.argmin(axis=1)
    least = flat[np.arange(gap.size), best]
    better = least < gap / 2 - _EPS * np.maximum(gap, 1.0)
    seat = np.broadcast_to(np.arange(2 * half), ids.shape).copy()
    where = np.flatnonzero(better)
    i, j = best[where] // half, best[where] % half + half
    seat[where, i], seat[where, j] = j, i
    return seat, better


@lru_cache(maxsize=16)
def _divisions(half: int) -> tuple[Ints, Floats]:
    """Seat orders [C, 2S] of every way to halve 2S copies, and their 0/1 matrix."""
    full = range(2 * half)
    left = [(0, *c) for c in combinations(range(1, 2 * half), half - 1)]
    seats = np.array([[*c, *(i for i in full if i not in c)] for c in left])
    member = np.zeros((len(left), 2 * half))
    np.put_along_axis(member, seats[:, :half], 1.0, axis=1)
    return seats, member


@lru_cache(maxsize=16)
def _together(half: int) -> tuple[Ints, Ints, Floats]:
    """Position pairs i < j and, per division, if both fall on one side: [pairs, C]."""
    member = _divisions(half)[1]
    i, j = np.triu_indices(2 * half, 1)
    return i, j, (member[:, i] == member[:, j]).T.astype(np.float64)


def _best_division(ids: Ints, vals: Floats, distinct: bool) -> tuple[Ints, Bools]:
    """Seats [X, 2S] of the most even division of each of X pairs, and if it helps."""
    half = ids.shape[1] // 2
    seats, member = _divisions(half)
    best = np.empty(ids.shape[0], dtype=np.int64)
    better = np.empty(ids.shape[0], dtype=bool)
    chunk = max(1, _CHUNK // member.size)
    for first in range(0, ids.shape[0], chunk):
        part = slice(first, first + chunk)
        best[part], better[part] = _divide(ids[part], vals[part], member, distinct)
    return np.where(better[:, None], seats[best], np.arange(2 * half)), better


def _divide(
    ids: Ints, vals: Floats, member: Floats, distinct: bool
) -> tuple[Ints, Bools]:
    """Index of the most even division of each pair, and if it helps."""
    half = ids.shape[1] // 2
    whole = vals.sum(axis=1)
    miss = (vals - whole[:, None] / (2 * half)) @ member.T
    np.abs(miss, out=miss)
    if distinct:
        i, j, together = _together(half)
        same = ids[:, i] == ids[:, j]
        clash = np.flatnonzero(same.any(axis=1))
        if clash.size:
            miss[clash] += np.where(same[clash] @ together > 0, np.inf, 0.0)
    best: Ints = miss.argmin(axis=1)
    least = miss[np.arange(best.size), best]
    now = vals[:, :half].sum(axis=1) - whole / 2
    better: Bools = least < now - _EPS * np.maximum(whole, 1.0)
    return best, better
