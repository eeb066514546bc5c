"""Lower bounds on the load of the busiest GPU, per row (layer).

Every bound holds for an even and for an uneven split of an expert's tokens over its
copies, unless its docstring says otherwise. Rows are layers: load has shape [B, E].
"""

from __future__ import annotations

import numpy as np

from .replicate import Floats, heaviest_copy, replica_counts


def mean_bound(load: Floats, gpus: int) -> Floats:
    """max_g load_g >= sum_e w_e / G."""
    mean: Floats = load.sum(axis=1) / gpus
    return mean


def replica_bound(load: Floats, slots: int, cap: int) -> Floats:
    """max_g load_g >= min over r (sum r = P, 1 <= r_e <= cap) of max_e w_e / r_e.

    The busiest copy of e carries at least w_e / r_e however the tokens are split;
    the greedy counts attain the minimum.
    """
    return heaviest_copy(load, replica_counts(load, slots, cap))


def counting_bound(load: Floats, gpus: int) -> Floats:
    """Without spare copies (P = E): pigeonhole over the k * G + 1 heaviest experts.

    Some GPU holds k + 1 of them, and its other S - k - 1 slots hold at least the
    lightest experts of all:
    T >= sum_{i = kG-k+1 .. kG+1} w_(i) + sum of the S - k - 1 smallest, k = 0..S-1,
    with w_(1) >= w_(2) >= ...
    """
    experts = load.shape[1]
    per_gpu = experts // gpus
    down = -np.sort(-load, axis=1)
    best = np.zeros(load.shape[0])
    for k in range(per_gpu):
        top = down[:, k * gpus - k : k * gpus + 1].sum(axis=1)
        fill = down[:, experts - (per_gpu - k - 1) :].sum(axis=1)
        best = np.maximum(best, top + fill)
    return best


def flat_bound(load: Floats, gpus: int, slots: int, cap: int) -> Floats:
    """The best of mean, replica and (without spare copies) counting, shape [B]."""
    best = np.maximum(mean_bound(load, gpus), replica_bound(load, slots, cap))
    if slots == load.shape[1]:
        best = np.maximum(best, counting_bound(load, gpus))
    return best
