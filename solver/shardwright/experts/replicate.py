"""How many copies each expert gets, for many layers at once.

Loads are token counts (float64), rows are layers (or layer x node), shape [B, E].
With an even split one copy of expert e carries w_e / r_e tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def replica_counts(load: Floats, slots: int, cap: int) -> Ints:
    """Copies [B, E] that minimise the heaviest copy, with sum `slots` per row.

    The k-th copy of e pays off w_e / k; the best counts take the slots - E largest
    of these, each row for itself. `cap` bounds the copies of one expert (the GPU
    count where an expert may sit on a GPU only once).
    Raises ValueError if E experts do not fit or cap * E slots cannot be filled.
    """
    rows, experts = load.shape
    if not experts <= slots <= cap * experts:
        raise ValueError(
            f"slots: found {slots}, allowed {experts} to {cap * experts} "
            f"({experts} experts, at most {cap} copies each)"
        )
    counts = _sure_copies(load, slots, cap)
    rest = slots - counts.sum(axis=1)
    share = np.where(counts < cap, load / counts, -1.0)
    index = np.arange(rows)
    for step in range(int(rest.max(initial=0))):
        alive = index if int(rest.min()) > step else index[rest > step]
        heaviest = share[alive].argmax(axis=1)
        counts[alive, heaviest] += 1
        new = counts[alive, heaviest]
        share[alive, heaviest] = np.where(new < cap, load[alive, heaviest] / new, -1.0)
    return counts


def _sure_copies(load: Floats, slots: int, cap: int) -> Ints:
    """Copies every greedy run hands out: all w_e / k above total / extra."""
    extra = slots - load.shape[1]
    total = load.sum(axis=1, keepdims=True)
    counts = np.ones(load.shape, dtype=np.int64)
    if extra == 0:
        return counts
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.ceil(load * extra / total * (1 - 1e-12))
    return np.clip(np.where(total > 0, wanted, 1), 1, cap).astype(np.int64)


def even_counts(load: Floats, slots: int, steps: tuple[int, ...]) -> Ints:
    """Copies [B, E] drawn from `steps` only, heaviest copy first, sum `slots`.

    `steps` is increasing, starts at 1 and holds 2. An upgrade that no longer fits
    into the slots that are left is passed over, so the last slots go to experts
    with one copy. Raises ValueError if the slots cannot be filled that way.
    """
    rows, experts = load.shape
    counts = np.ones((rows, experts), dtype=np.int64)
    ladder = np.zeros(max(steps) + 1, dtype=np.int64)
    ladder[list(steps[:-1])] = steps[1:]
    rest = np.full(rows, slots - experts)
    index = np.arange(rows)
    while rest.any():
        cost = ladder[counts] - counts
        fits = (cost > 0) & (cost <= rest[:, None])
        if not fits[rest > 0].any(axis=1).all():
            raise ValueError(f"slots: {slots} cannot be filled with copies in {steps}")
        best = np.where(fits, load / counts, -1.0).argmax(axis=1)
        grow = np.where(rest > 0, cost[index, best], 0)
        counts[index, best] += grow
        rest -= grow
    return counts


def heaviest_copy(load: Floats, counts: Ints) -> Floats:
    """max_e w_e / r_e per row, shape [B]."""
    top: Floats = (load / counts).max(axis=1)
    return top
