"""Maps as engines read them: [L, P] expert ids, GPU g owns slots [g * S, (g + 1) * S).

What a valid map is, how many experts move between two maps, and slots that stay.
"""

from __future__ import annotations

import numpy as np

from .refine import moved
from .replicate import Ints


def to_map(expert: Ints) -> Ints:
    """[L, G, S] to [L, P], the experts of a GPU in ascending order."""
    ordered = np.sort(expert, axis=2)
    return ordered.reshape(expert.shape[0], -1)


def check_map(
    maps: Ints, experts: int, gpus: int, distinct: bool, where: str = "map"
) -> None:
    """Raise ValueError unless every expert has a slot and rules on copies hold."""
    if (maps < 0).any() or (maps >= experts).any():
        bad = int(maps[(maps < 0) | (maps >= experts)][0])
        raise ValueError(f"{where}: found expert {bad}, allowed 0 to {experts - 1}")
    for layer, row in enumerate(maps):
        missing = np.flatnonzero(np.bincount(row, minlength=experts) == 0)
        if missing.size:
            raise ValueError(
                f"{where}[{layer}]: found no slot of expert {missing[0]}, "
                "allowed at least one per expert"
            )
        if distinct and (gpu := doubled_gpu(row.reshape(gpus, -1))) is not None:
            raise ValueError(
                f"{where}[{layer}]: found two copies of an expert on GPU {gpu}, "
                "allowed one"
            )


def doubled_gpu(expert: Ints) -> int | None:
    """The first GPU of [G, S] that holds an expert twice, or None."""
    ordered = np.sort(expert, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    return int(twice[0]) if twice.size else None


def presence(expert: Ints, experts: int) -> Ints:
    """How often each expert sits on each GPU, [E, G], from [G, S]."""
    held = np.zeros((experts, expert.shape[0]), dtype=np.int64)
    np.add.at(held, (expert, np.arange(expert.shape[0])[:, None]), 1)
    return held


def moves_between(old: Ints, new: Ints, experts: int, gpus: int) -> Ints:
    """Per layer, experts on a GPU that did not hold them before, [L]."""
    counts = [
        moved(
            presence(n.reshape(gpus, -1), experts),
            presence(o.reshape(gpus, -1), experts) > 0,
        )
        for o, n in zip(old, new, strict=True)
    ]
    return np.array(counts, dtype=np.int64)


def keep_slots(old: Ints, new: Ints, gpus: int) -> Ints:
    """The new map with every expert that stays on its GPU in the slot it had."""
    layers, slots = old.shape
    kept = np.full((layers, gpus, slots // gpus), -1, dtype=np.int64)
    before = old.reshape(kept.shape)
    after = new.reshape(kept.shape)
    for layer in range(layers):
        for gpu in range(gpus):
            _keep_on_gpu(kept[layer, gpu], before[layer, gpu], after[layer, gpu])
    return kept.reshape(layers, slots)


def _keep_on_gpu(kept: Ints, before: Ints, after: Ints) -> None:
    """Fill one GPU's slots: those who stay first, newcomers in the free slots."""
    rest = after.tolist()
    for slot, expert in enumerate(before.tolist()):
        if expert in rest:
            kept[slot] = expert
            rest.remove(expert)
    kept[kept < 0] = rest


def relabel(old: Ints, new: Ints, experts: int, per_block: int) -> Ints:
    """The new layer [G, S] with its GPUs renamed, so that most experts stay.

    GPUs are matched greedily by shared experts, only inside blocks of `per_block`
    (a node, where a plan is bound to nodes).
    """
    out = np.empty_like(new)
    for first in range(0, old.shape[0], per_block):
        part = slice(first, first + per_block)
        common = (presence(old[part], experts) > 0).astype(np.int64).T @ (
            presence(new[part], experts) > 0
        )
        for _ in range(common.shape[0]):
            i, j = np.unravel_index(int(common.argmax()), common.shape)
            out[first + i] = new[first + j]
            common[i, :] = common[:, j] = -1
    return out
