"""EPLB from its published description, in numpy: what there is to beat.

Copies go one by one to the expert with the heaviest copy; copies go heaviest first to
the lightest GPU with a free slot. Node-limited: groups go heaviest first to the
lightest node with room, then each node is done for itself. Two versions with the same
result: `by_layer` packs copy by copy and layer by layer, in time proportional to
layers times slots like vLLM's numpy policy; `batched` packs all layers at once and is
several times faster than what engines run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .cases import Case

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Packer = Callable[[Floats, int], Ints]


def replicate(load: Floats, slots: int) -> tuple[Ints, Ints]:
    """Experts of all copies [B, P] and copies per expert [B, E]."""
    rows, experts = load.shape
    index = np.arange(rows)
    expert = np.broadcast_to(np.arange(slots) % experts, (rows, slots)).copy()
    counts = np.ones((rows, experts), dtype=np.int64)
    share = load.copy()
    for slot in range(experts, slots):
        heaviest = share.argmax(axis=1)
        expert[:, slot] = heaviest
        counts[index, heaviest] += 1
        share[index, heaviest] = load[index, heaviest] / counts[index, heaviest]
    return expert, counts


def pack_by_layer(weight: Floats, bins: int) -> Ints:
    """Bin of each item [B, n], n / bins items per bin; one argmin per row and item."""
    room = weight.shape[1] // bins
    out = np.empty(weight.shape, dtype=np.int64)
    order = np.argsort(-weight, axis=1, kind="stable")
    for row in range(weight.shape[0]):
        total, used = np.zeros(bins), np.zeros(bins, dtype=np.int64)
        for item in order[row]:
            b = total.argmin()
            out[row, item] = b
            used[b] += 1
            total[b] += weight[row, item] if used[b] < room else np.inf
    return out


def pack_batched(weight: Floats, bins: int) -> Ints:
    """Bin of each item [B, n], all rows at once, one item of each row at a time."""
    rows, items = weight.shape
    room = items // bins
    out = np.empty(weight.shape, dtype=np.int64)
    order = np.argsort(-weight, axis=1, kind="stable")
    values = np.take_along_axis(weight, order, axis=1)
    total, used = np.zeros((rows, bins)), np.zeros((rows, bins), dtype=np.int64)
    index = np.arange(rows)
    for i in range(items):
        b = total.argmin(axis=1)
        out[index, order[:, i]] = b
        used[index, b] += 1
        total[index, b] += np.where(used[index, b] == room, np.inf, values[:, i])
    return out


def _nodes(case: Case, pack: Packer) -> Ints:
    """Experts of each node [L, N, E / N]."""
    layers, experts = case.load.shape
    if not case.hierarchical:
        return np.broadcast_to(np.arange(experts), (layers, 1, experts))
    size = experts // case.groups
    sums = case.load.reshape(layers, case.groups, size).sum(axis=2)
    node = np.repeat(pack(sums, case.nodes), size, axis=1)
    order = np.argsort(node, axis=1, kind="stable")
    return order.reshape(layers, case.nodes, -1)


def eplb(case: Case, pack: Packer = pack_batched) -> Ints:
    """EPLB's map [L, P] of a case."""
    members = _nodes(case, pack)
    layers, nodes, experts = members.shape
    load = np.take_along_axis(case.load, members.reshape(layers, -1), axis=1)
    load = load.reshape(layers * nodes, experts)
    copy, counts = replicate(load, case.slots // nodes)
    value = np.take_along_axis(load / counts, copy, axis=1)
    gpu = pack(value, case.gpus // nodes)
    order = np.argsort(gpu, axis=1, kind="stable")
    local = np.take_along_axis(copy, order, axis=1)
    ids = np.take_along_axis(members.reshape(layers * nodes, experts), local, axis=1)
    return ids.reshape(layers, case.slots)
