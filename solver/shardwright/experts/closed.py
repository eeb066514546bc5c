"""Plans on which sglang_static dispatch is even, so that the plan is what one gets.

Newer rule: all copies of an expert on one node (node-closed). Its own GPU sends each
copy one share, the other G - c ranks are dealt evenly if c divides G; so c is taken
from the divisors of G up to the GPUs of a node, and no draw is left to chance.
Older rule: the first copy on a node takes all of the node's traffic, so an expert has
one copy, or one on every node.
"""

from __future__ import annotations

import numpy as np

from .bounds import flat_bound
from .close import Closed
from .effort import Effort
from .flat import Bins, pack_counts
from .grouped import globalise
from .pack import Packing, exchange, longest_first
from .replicate import Floats, Ints, even_counts, replica_counts


def even_steps(gpus: int, nodes: int) -> tuple[int, ...]:
    """Copies on one node that share uniform traffic exactly evenly."""
    return tuple(c for c in range(1, gpus // nodes + 1) if gpus % c == 0)


def spread_over_nodes(load: Floats, nodes: int, effort: Effort) -> Ints:
    """Experts [L, N, E / N], equally many per node, node loads as even as found."""
    ones = np.ones(load.shape, dtype=np.int64)
    start = longest_first(load, ones, nodes)
    target = load.sum(axis=1) / nodes * (1 + effort.tolerance)
    return exchange(start, target, True, effort.rounds).expert


def solve_node_closed(
    load: Floats, bins: Bins, nodes: int, experts: Ints | None, effort: Effort
) -> Closed:
    """Newer rule; load [L, E]; bound [L] for every placement whatever the split.

    `experts` [L, N, E / N] fixes the node of each expert. Where the even copy numbers
    cannot fill the slots the best ones are taken and a remainder is left to the draw.
    Raises ValueError if experts or slots do not divide over the nodes.
    """
    _divides("experts", load.shape[1], nodes)
    _divides("slots", bins.slots, nodes)
    node = Bins(bins.gpus // nodes, bins.slots // nodes, True)
    bound = flat_bound(load, bins.gpus, bins.slots, bins.gpus)
    if experts is None:
        experts = spread_over_nodes(load, nodes, effort)
    local = np.take_along_axis(load, experts.reshape(load.shape[0], -1), axis=1)
    rows = local.reshape(load.shape[0] * nodes, -1)
    counts = _shared_counts(rows, node, even_steps(bins.gpus, nodes))
    target = np.repeat(bound, nodes) * (1 + effort.tolerance)
    packing = pack_counts(rows, counts, node, target, effort)
    return Closed(globalise(packing, experts), bound)


def _shared_counts(load: Floats, node: Bins, steps: tuple[int, ...]) -> Ints:
    """Copies from `steps` if they can fill the node, else the greedy ones."""
    try:
        return even_counts(load, node.slots, steps)
    except ValueError:
        return replica_counts(load, node.slots, node.cap)


def solve_one_per_node(load: Floats, bins: Bins, nodes: int, effort: Effort) -> Closed:
    """Older rule: the heaviest experts once on every node, the others once.

    Raises ValueError unless the spare slots are a multiple of N - 1.
    """
    layers, total = load.shape
    spare = bins.slots - total
    if nodes < 2 or spare % (nodes - 1):
        raise ValueError(
            f"slots: found {bins.slots}, allowed {total} plus a multiple of the "
            f"{nodes} nodes minus one (older static dispatch)"
        )
    both = spare // (nodes - 1)
    _divides("experts on one node only", total - both, nodes)
    order = np.argsort(-load, axis=1, kind="stable")
    singles = order[:, both:]
    alone = np.take_along_axis(load, singles, axis=1)
    spread = spread_over_nodes(alone, nodes, effort)
    mine = np.take_along_axis(singles, spread.reshape(layers, -1), axis=1)
    shared = np.broadcast_to(order[:, None, :both], (layers, nodes, both))
    experts = np.concatenate([shared, mine.reshape(spread.shape)], axis=2)
    weight = np.where(np.arange(experts.shape[2]) < both, 1 / nodes, 1.0)
    rows = np.take_along_axis(load, experts.reshape(layers, -1), axis=1)
    rows = (rows.reshape(experts.shape) * weight).reshape(layers * nodes, -1)
    bound = flat_bound(load, bins.gpus, bins.slots, bins.gpus)
    node = Bins(bins.gpus // nodes, bins.slots // nodes, True)
    target = np.repeat(bound, nodes) * (1 + effort.tolerance)
    ones = np.ones(rows.shape, dtype=np.int64)
    packing: Packing = pack_counts(rows, ones, node, target, effort)
    return Closed(globalise(packing, experts), bound)


def _divides(what: str, found: int, nodes: int) -> None:
    if found % nodes:
        raise ValueError(f"{what}: found {found}, allowed multiples of {nodes} nodes")
