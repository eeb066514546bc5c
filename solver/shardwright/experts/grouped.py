"""Node-limited placement: each expert group lives on one node, n / N groups a node.

Which groups share a node is chosen by the bottleneck bound of the nodes, not by the
sums of their loads: for every possible node (subset of groups) the bound of its own
packing problem, then the partition whose worst node is best. Group i holds the
experts [i * E / n, (i + 1) * E / n).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from math import comb, factorial

import numpy as np

from .bounds import flat_bound
from .close import Closed, close_rows
from .effort import Effort
from .flat import Bins
from .pack import Packing, deal, exchange, longest_first
from .replicate import Floats, Ints

_MOST_PARTITIONS = 12_000
_TIGHT = 1 + 1e-9


@dataclass(frozen=True)
class Groups:
    """n groups of experts over N nodes of the bins' GPUs."""

    groups: int
    nodes: int
    bins: Bins

    @property
    def node_bins(self) -> Bins:
        """The bins of one node."""
        b = self.bins
        return Bins(b.gpus // self.nodes, b.slots // self.nodes, b.distinct)


def partition_count(groups: int, nodes: int) -> int:
    """Ways to split n groups into N unlabelled nodes of n / N groups."""
    each = groups // nodes
    ways: int = factorial(each) ** nodes * factorial(nodes)
    return factorial(groups) // ways


@lru_cache(maxsize=8)
def partitions(groups: int, nodes: int) -> tuple[Ints, Ints]:
    """Subsets [C, n / N] of groups, and partitions [Q, N] as indices of subsets."""
    each = groups // nodes
    subsets = list(combinations(range(groups), each))
    index = {subset: i for i, subset in enumerate(subsets)}
    found: list[list[int]] = []

    def split(left: tuple[int, ...], chosen: list[int]) -> None:
        if not left:
            found.append(chosen)
            return
        for rest in combinations(left[1:], each - 1):
            subset = (left[0], *rest)
            remaining = tuple(g for g in left if g not in subset)
            split(remaining, [*chosen, index[subset]])

    split(tuple(range(groups)), [])
    return np.array(subsets), np.array(found)


def solve_grouped(load: Floats, shape: Groups, effort: Effort) -> Closed:
    """Packing [L, G, S] over all nodes and bound [L]; load [L, E], experts global."""
    if partition_count(shape.groups, shape.nodes) > _MOST_PARTITIONS:
        return _solve_by_sums(load, shape, effort)
    if comb(shape.groups, shape.groups // shape.nodes) == 1:
        return close_rows(load, shape.bins, effort)
    return _solve_by_bottleneck(load, shape, effort)


def _members(load: Floats, groups: Ints, count: int) -> Ints:
    """Experts of the groups in the last axis of `groups`, concatenated."""
    size = load.shape[1] // count
    ids = groups[..., None] * size + np.arange(size)
    flat: Ints = ids.reshape(*groups.shape[:-1], -1)
    return flat


def _solve_by_bottleneck(load: Floats, shape: Groups, effort: Effort) -> Closed:
    """Bounds of all nodes, the best partition first, others where it stays open."""
    subsets, parts = partitions(shape.groups, shape.nodes)
    experts = _members(load, subsets, shape.groups)
    layers, kinds = load.shape[0], len(subsets)
    node_load = load[:, experts]
    bins = shape.node_bins
    flat = node_load.reshape(layers * kinds, -1)
    low = flat_bound(flat, bins.gpus, bins.slots, bins.cap).reshape(layers, kinds)
    table = _NodeTable(node_load, low, parts, bins)
    table.solve(_best_parts(low, low, parts), effort)
    if effort.restarts:
        if not bins.distinct:
            table.solve(_by_sums(node_load, parts), effort)
        table.solve_promising(effort)
    return table.result(experts)


def _best_parts(first: Floats, second: Floats, parts: Ints) -> Ints:
    """Per layer the nodes [L, N] of the partition with the least worst node."""
    worst = first[:, parts].max(axis=2)
    spread = (second[:, parts] ** 2).sum(axis=2)
    tied = worst <= worst.min(axis=1, keepdims=True) * _TIGHT
    chosen: Ints = parts[np.where(tied, spread, np.inf).argmin(axis=1)]
    return chosen


def _by_sums(node_load: Floats, parts: Ints) -> Ints:
    """Per layer the nodes of the partition whose heaviest node is lightest."""
    return _best_parts(node_load.sum(axis=2), node_load.sum(axis=2), parts)


class _NodeTable:
    """Lowest known top and highest known bound of every possible node, [L, C]."""

    def __init__(self, load: Floats, low: Floats, parts: Ints, bins: Bins) -> None:
        self.load, self.low, self.parts, self.bins = load, low, parts, bins
        self.top = np.full(low.shape, np.inf)
        per_gpu = bins.slots // bins.gpus
        self.expert = np.zeros((*low.shape, bins.gpus, per_gpu), dtype=np.int64)
        self.value = np.zeros((*low.shape, bins.gpus, per_gpu))

    def solve(self, nodes: Ints, effort: Effort) -> None:
        """Solve the nodes [L, N] that have no packing yet; a node need not beat
        the layer's bound, which is the worst of its own."""
        layer = np.repeat(np.arange(nodes.shape[0]), nodes.shape[1])
        self._solve(layer, nodes.ravel(), effort)

    def solve_promising(self, effort: Effort) -> None:
        """Solve every node that a better partition of an open layer might use."""
        parts = self.parts
        top = self.top[:, parts].max(axis=2).min(axis=1)
        bound = self.bound()
        open_layer = top > bound * (1 + effort.tolerance)
        if not open_layer.any():
            return
        hope = self.low[:, parts].max(axis=2) < top[:, None] * (1 - effort.tolerance)
        hope &= open_layer[:, None]
        wanted = np.zeros(self.low.shape, dtype=bool)
        layer, part = np.nonzero(hope)
        wanted[layer[:, None], parts[part]] = True
        rows, kinds = np.nonzero(wanted)
        self._solve(rows, kinds, effort)

    def _solve(self, layer: Ints, kind: Ints, effort: Effort) -> None:
        fresh = np.isinf(self.top[layer, kind])
        at = layer[fresh], kind[fresh]
        if at[0].size == 0:
            return
        floor = self.bound()[at[0]]
        done = close_rows(self.load[at], self.bins, effort, floor)
        self.expert[at], self.value[at] = done.packing.expert, done.packing.value
        self.top[at] = done.packing.top
        self.low[at] = np.maximum(self.low[at], done.bound)

    def bound(self) -> Floats:
        """min over partitions of the worst node's bound, [L]."""
        least: Floats = self.low[:, self.parts].max(axis=2).min(axis=1)
        return least

    def result(self, experts: Ints) -> Closed:
        """The best solved partition of every layer, with global expert ids."""
        nodes = _best_parts(self.top, np.minimum(self.top, self.low), self.parts)
        rows = np.arange(nodes.shape[0])[:, None]
        local = self.expert[rows, nodes]
        layers = local.shape[0]
        names = experts[nodes][:, :, None, :]
        expert = np.take_along_axis(
            np.broadcast_to(names, (*local.shape[:3], names.shape[3])), local, axis=3
        )
        per_gpu = local.shape[3]
        packing = Packing(
            expert.reshape(layers, -1, per_gpu),
            self.value[rows, nodes].reshape(layers, -1, per_gpu),
        )
        return Closed(packing, np.minimum(self.bound(), packing.top))


def _solve_by_sums(load: Floats, shape: Groups, effort: Effort) -> Closed:
    """Too many partitions to list: groups by longest-first and exchange on sums."""
    layers = load.shape[0]
    sums = load.reshape(layers, shape.groups, -1).sum(axis=2)
    ones = np.ones(sums.shape, dtype=np.int64)
    start = longest_first(sums, ones, shape.nodes)
    target = sums.sum(axis=1) / shape.nodes
    packed = exchange(start, target, True, effort.rounds)
    experts = _members(load, packed.expert, shape.groups)
    done = solve_nodes(load, experts, shape.node_bins, effort)
    bins = shape.bins
    bound = flat_bound(load, bins.gpus, bins.slots, shape.node_bins.cap)
    heaviest = deal(sums, ones, shape.groups, True).top
    node = heaviest / shape.node_bins.gpus
    return replace(done, bound=np.maximum(bound, node))


def solve_nodes(load: Floats, experts: Ints, bins: Bins, effort: Effort) -> Closed:
    """Pack each node of given experts [L, N, E / N] for itself; bound of that split."""
    layers, nodes, size = experts.shape
    local = np.take_along_axis(load[:, None, :].repeat(nodes, axis=1), experts, axis=2)
    done = close_rows(local.reshape(layers * nodes, size), bins, effort)
    packing = globalise(done.packing, experts)
    return Closed(packing, done.bound.reshape(layers, nodes).max(axis=1))


def globalise(local: Packing, experts: Ints) -> Packing:
    """Local expert ids of rows (layer, node) to global ones, nodes side by side."""
    layers, nodes, size = experts.shape
    gpus, per_gpu = local.expert.shape[1:]
    ids = np.take_along_axis(
        experts.reshape(layers * nodes, 1, size).repeat(gpus, axis=1),
        local.expert,
        axis=2,
    )
    shape = (layers, nodes * gpus, per_gpu)
    return Packing(ids.reshape(shape), local.value.reshape(shape))
