"""Small rows solved to the end: every count vector, then branch and bound."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from .effort import Deadline
from .flat import Bins
from .pack import copies_in_order, deal
from .replicate import Floats, Ints
from .two_slots import fold_value

MOST_VECTORS = 7000
MOST_SLOTS = 16
_NODES = 200_000
_EPS = 1e-12


def small_enough(experts: int, slots: int) -> bool:
    """True where all ways to copy the experts can be listed."""
    return slots <= MOST_SLOTS and comb(slots - 1, experts - 1) <= MOST_VECTORS


def count_vectors(experts: int, slots: int, cap: int) -> Ints:
    """Every way to give each expert 1 to cap copies, `slots` in all: [V, E]."""
    cuts = np.array(list(combinations(range(1, slots), experts - 1)), dtype=np.int64)
    cuts = cuts.reshape(-1, experts - 1)
    edges = np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (0, slots)))
    vectors = np.diff(edges, axis=1)
    keep: Ints = vectors[(vectors <= cap).all(axis=1)]
    return keep


def exact_row(
    load: Floats, bins: Bins, top: float, bound: float, deadline: Deadline
) -> tuple[Ints | None, float]:
    """The best placement [G, S] lighter than `top` (None if there is none) and a bound.

    load [E]. The bound is max(given, least bound of the count vectors not finished):
    equal to the best value when the search ran to its end.
    """
    vectors = count_vectors(load.size, bins.slots, bins.cap)
    loads = np.broadcast_to(load, vectors.shape)
    floors = np.maximum(_floor(loads, vectors, bins), bound)
    dealt = deal(loads, vectors, bins.gpus, bins.distinct)
    best = None
    pick = int(dealt.top.argmin())
    if dealt.top[pick] < top * (1 - _EPS):
        best, top = dealt.expert[pick], float(dealt.top[pick])
    open_floor = top
    for v in np.argsort(floors, kind="stable"):
        if floors[v] >= top * (1 - 1e-9):
            break
        if deadline.expired():
            open_floor = min(open_floor, float(floors[v]))
            break
        found, finished = _branch(load, vectors[v], bins, top)
        if found is not None:
            best, top = found
        if not finished:
            open_floor = min(open_floor, float(floors[v]))
    return best, max(bound, min(top, open_floor))


def _floor(loads: Floats, counts: Ints, bins: Bins) -> Floats:
    """Bound per count vector: mean, then fold (two slots) or heaviest plus lightest.

    Elsewhere the copies are fixed, so pigeonhole holds: among the k * G + 1 heaviest
    copies k + 1 share a GPU, next to the S - k - 1 lightest of all.
    """
    _, values = copies_in_order(loads, counts)
    best: Floats = values.sum(axis=1) / bins.gpus
    if bins.folds:
        return np.maximum(best, fold_value(loads, counts))
    per_gpu = bins.slots // bins.gpus
    for k in range(per_gpu):
        top = values[:, k * bins.gpus - k : k * bins.gpus + 1].sum(axis=1)
        fill = values[:, bins.slots - (per_gpu - k - 1) :].sum(axis=1)
        best = np.maximum(best, top + fill)
    return best


def _branch(
    load: Floats, counts: Ints, bins: Bins, top: float
) -> tuple[tuple[Ints, float] | None, bool]:
    """Depth-first over copies, heaviest first; (placement, value) below top, finished.

    A copy never goes to the second of two equal GPUs, nor before its expert's last.
    """
    ids, values = (a[0].tolist() for a in copies_in_order(load[None], counts[None]))
    per_gpu = bins.slots // bins.gpus
    room: list[list[int]] = [[] for _ in range(bins.gpus)]
    total = [0.0] * bins.gpus
    state = {"top": top, "nodes": 0}
    found: list[tuple[Ints, float]] = []

    def place(i: int, first: int) -> None:
        state["nodes"] += 1
        if state["nodes"] > _NODES:
            return
        if i == len(ids):
            state["top"] = max(total)
            found.append((np.array(room), state["top"]))
            return
        seen = set()
        for g in range(first, bins.gpus):
            key = (total[g], len(room[g]), ids[i - 1] in room[g] if i else False)
            full = len(room[g]) == per_gpu
            if full or total[g] + values[i] >= state["top"] * (1 - _EPS):
                continue
            if bins.distinct and ids[i] in room[g]:
                continue
            if not room[g] and key in seen:
                continue
            seen.add(key)
            before = total[g]
            room[g].append(ids[i])
            total[g] += values[i]
            again = i + 1 < len(ids) and ids[i + 1] == ids[i]
            place(i + 1, (g + 1 if bins.distinct else g) if again else 0)
            room[g].pop()
            total[g] = before

    place(0, 0)
    return (found[-1] if found else None), state["nodes"] <= _NODES
