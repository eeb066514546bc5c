"""Rows without structure: counts, start, exchange, perturbed restarts, all batched.

A row is one layer, or one node of a layer; rows share E, G and P.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .effort import Effort
from .pack import Packing, deal, exchange, longest_first
from .replicate import Floats, Ints, replica_counts
from .two_slots import fold_value

_COARSE = 1.02
_FEW = 12


@dataclass(frozen=True)
class Bins:
    """G GPUs with P slots in all; `distinct`: an expert sits on a GPU at most once."""

    gpus: int
    slots: int
    distinct: bool

    @property
    def folds(self) -> bool:
        """Two slots per GPU, where dealing is folding and nothing beats it."""
        return self.slots == 2 * self.gpus

    @property
    def cap(self) -> int:
        """Most copies that one expert may have."""
        return self.gpus if self.distinct else self.slots


@dataclass
class _Best:
    """The best packing so far per row, with its counts and value; updated in place."""

    expert: Ints
    value: Floats
    counts: Ints
    top: Floats

    @classmethod
    def of(cls, packing: Packing, counts: Ints) -> _Best:
        return cls(packing.expert, packing.value, counts.copy(), packing.top)

    def offer(self, rows: Ints, packing: Packing, counts: Ints) -> None:
        """Take, per row, the lightest of the offered packings if it is an advance."""
        top = packing.top
        order = np.lexsort((top, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        take = first[top[first] < self.top[rows[first]] * (1 - 1e-12)]
        at = rows[take]
        self.expert[at], self.value[at] = packing.expert[take], packing.value[take]
        self.counts[at], self.top[at] = counts[take], top[take]


def solve_rows(load: Floats, bins: Bins, bound: Floats, effort: Effort) -> Packing:
    """The best packing found for every row of load [B, E]; `bound` [B] stops early.

    With effort.restarts > 0 the plain longest-first packing of the greedy counts is
    among the starts where copies on one GPU are allowed, so no row ends above it.
    """
    counts = replica_counts(load, bins.slots, bins.cap)
    target = bound * (1 + effort.tolerance)
    best = _first_pass(load, counts, bins, target, effort)
    if bins.gpus > 1:
        restart(load, bins, best, target, effort)
    return Packing(best.expert, best.value)


def pack_counts(
    load: Floats, counts: Ints, bins: Bins, target: Floats, effort: Effort
) -> Packing:
    """The best packing found for given copies [B, E]."""
    best = _first_pass(load, counts, bins, target, effort)
    if bins.gpus > 1:
        restart(load, bins, best, target, effort, transfer=False)
    return Packing(best.expert, best.value)


def _first_pass(
    load: Floats, counts: Ints, bins: Bins, target: Floats, effort: Effort
) -> _Best:
    """Deal (single copies: longest first) and exchange; longest first where copies on
    one GPU are allowed and dealing starts far off, or the search is a full one."""
    single = bins.slots == load.shape[1]
    if single and not bins.folds:
        start = longest_first(load, counts, bins.gpus)
    else:
        start = deal(load, counts, bins.gpus, bins.distinct)
    best = _Best.of(start, counts)
    if bins.folds:
        if bins.distinct:
            rows = np.flatnonzero(best.top > fold_value(load, counts) * (1 + 1e-9))
            done = exchange(start.rows(rows), target[rows], True, _FEW)
            best.offer(rows, done, counts[rows])
        return best
    settled = bins.distinct or single
    limit = np.inf if settled else target * _COARSE
    near = np.flatnonzero((best.top > target) & (best.top <= limit))
    done = exchange(start.rows(near), target[near], bins.distinct, effort.rounds)
    best.offer(near, done, counts[near])
    if not settled:
        _longest_pass(load, bins, best, target, effort)
    return best


def _longest_pass(
    load: Floats, bins: Bins, best: _Best, target: Floats, effort: Effort
) -> None:
    """Longest-first starts: of rows far off, or of all open rows in a full search."""
    limit = target if effort.restarts else target * _COARSE
    rows = np.flatnonzero(best.top > limit)
    if effort.restarts and not bins.distinct:
        rows = np.arange(load.shape[0])
    if rows.size == 0:
        return
    start = longest_first(load[rows], best.counts[rows], bins.gpus)
    best.offer(rows, start, best.counts[rows])
    done = exchange(start, target[rows], bins.distinct, effort.rounds)
    best.offer(rows, done, best.counts[rows])


def restart(
    load: Floats,
    bins: Bins,
    best: _Best,
    target: Floats,
    effort: Effort,
    transfer: bool = True,
) -> None:
    """Perturbed starts for open rows: a copy or two change experts, the order blurs.

    Stops at the targets, at the deadline or after effort.restarts batches.
    """
    random = np.random.default_rng(effort.seed)
    if bins.slots == load.shape[1] or bins.slots == bins.cap * load.shape[1]:
        transfer = False
    for turn in range(effort.restarts):
        open_rows = np.flatnonzero(best.top > target)
        if open_rows.size == 0 or effort.deadline.expired():
            return
        rows = np.repeat(open_rows, max(1, min(64, effort.width // open_rows.size)))
        counts = best.counts[rows]
        if transfer and turn % 4 != 3:
            moves = 1 + turn % 3
            top = best.top[rows]
            counts = move_copies(load[rows], counts, bins.cap, top, moves, random)
        noise = 0.0 if bins.folds else 0.02 * (1 + turn % 5)
        blur = 1 + noise * random.standard_normal(counts.shape)
        tried = deal(load[rows], counts, bins.gpus, bins.distinct, blur)
        if not bins.folds:
            tried = exchange(tried, target[rows], bins.distinct, effort.rounds)
        best.offer(rows, tried, counts)


def move_copies(
    load: Floats,
    counts: Ints,
    cap: int,
    top: Floats,
    moves: int,
    random: np.random.Generator,
) -> Ints:
    """Counts after random transfers of a copy from one expert to another.

    A donor keeps a copy and its copies stay below `top`; each row changes for itself.
    """
    counts = counts.copy()
    index = np.arange(counts.shape[0])
    for _ in range(moves):
        left = load / np.maximum(counts - 1, 1)
        gives = (counts > 1) & (left < top[:, None])
        takes = counts < cap
        donor = np.where(gives, random.random(counts.shape), -1.0).argmax(axis=1)
        heavy = np.where(takes, (load / counts) * random.random(counts.shape), -1.0)
        taker = heavy.argmax(axis=1)
        fine = gives[index, donor] & takes[index, taker] & (donor != taker)
        counts[index[fine], donor[fine]] -= 1
        counts[index[fine], taker[fine]] += 1
    return counts
