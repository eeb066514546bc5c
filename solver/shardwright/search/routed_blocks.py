"""Blocks: series-parallel networks of few nodes that serve a run of layers.

A block is a node, two blocks one after the other (the flow of the weaker one), or two
blocks side by side over the same layers (the sum). Only how many nodes of which group
it uses matters, so one table holds the most flow of every (nodes used, stages at most,
layers); it is exact over these networks. Rates of any shape are allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from math import lcm

import numpy as np
from numpy.typing import NDArray

from shardwright.formulations.cpsat.routed_chain import Block
from shardwright.formulations.cpsat.routed_covers import SHARE, covers, stage_share
from shardwright.problem.routed_groups import Group

Use = tuple[int, ...]
"""Nodes used of every group of the region."""
Piece = tuple[int, int, int]
"""Group, start within the block, layers."""

MAX_BLOCK_NODES = 8
MAX_BLOCK_STAGES = 6
MAX_BLOCK_LAYERS = 36
_NEVER = MAX_BLOCK_STAGES + 1
_WORK = 5_000
"""Pairs of blocks that are put together; fewer nodes per block when there are more."""


class BlockTable:
    """Most flow by use, stages and layers, of the groups of one region."""

    def __init__(self, groups: Sequence[Group], layers: int, most_flow: int) -> None:
        self.groups = tuple(groups)
        self.layers = min(layers, MAX_BLOCK_LAYERS)
        self.uses = _uses([group.count for group in groups])
        self._most = most_flow
        self._flow: dict[Use, NDArray[np.int64]] = {}
        self._row: dict[Use, NDArray[np.int64]] = {}
        for use in self.uses:
            self._row[use] = self._in_a_row(use)
            whole = self._alone(use) if sum(use) == 1 else self._side_by_side(use)
            self._flow[use] = np.maximum(whole, self._row[use])

    def flows(self) -> set[int]:
        """Every flow that some block carries exactly, cut to the most of all."""
        return {int(v) for t in self._flow.values() for v in np.unique(t)} - {0}

    def blocks(self, flow: int) -> list[Block]:
        """Blocks that carry ``flow`` and are not two such blocks in a row; none with
        more nodes and as many stages as something else over the same layers."""
        fewest: dict[Use, NDArray[np.int64]] = {}
        found = []
        for use in self.uses:
            stages = _first(self._flow[use] >= flow)
            least = np.full(self.layers + 1, _NEVER)
            for smaller in _one_less(use):
                np.minimum(least, fewest[smaller], out=least)
            fewest[use] = np.minimum(least, stages)
            # a row of blocks that carry the flow is put together by the program
            new = (stages < least) & (stages < _first(self._row[use] >= flow))
            found += [Block(int(k), int(stages[k]), use) for k in np.nonzero(new)[0]]
        return found

    def gates(self, flow: int, most: int) -> list[Block]:
        """Two to ``most`` nodes side by side over equally many layers."""
        found = []
        for use in (u for u in self.uses if 2 <= sum(u) <= most):
            deepest = min(len(g.rates) for g, n in zip(self.groups, use, strict=True)
                          if n)  # fmt: skip
            for k in range(1, min(deepest, self.layers) + 1):
                rates = (
                    n * g.rates[k - 1]
                    for g, n in zip(self.groups, use, strict=True)
                    if n
                )
                if sum(rates) >= flow:
                    found.append(Block(k, 1, use, gate=sum(use)))
        return found

    def laned(self, flow: int) -> list[Block]:
        """Covers of ``flow`` as lanes, each a chain of equal nodes, over the least
        common multiple of their layers; all blocks with stages in units of ``SHARE``,
        as a mean over the flow. Routes may change lanes where nodes of both end."""
        found = [
            replace(block, stages=block.stages * SHARE) for block in self.blocks(flow)
        ]
        for cover in covers(self.groups, flow, filled=True) or ():
            layers = lcm(*(item.layers for item in cover))
            use = [0] * len(self.groups)
            for item in cover:
                use[item.group] += layers // item.layers
            fits = all(n <= g.count for n, g in zip(use, self.groups, strict=True))
            if fits and len(cover) > 1:
                lanes = tuple((item.group, item.layers) for item in cover)
                share = stage_share(cover, flow) * layers
                found.append(Block(layers, share, tuple(use), lanes=lanes))
        return found

    def pieces(self, block: Block, flow: int) -> list[Piece]:
        """Nodes of a block that carries ``flow``: group, start, layers of each."""
        if block.lanes:
            return [
                (g, start, k)
                for g, k in block.lanes
                for start in range(0, block.layers, k)
            ]
        if block.gate > 1:
            return [
                (g, 0, block.layers) for g, n in enumerate(block.use) for _ in range(n)
            ]
        stages = int(_first(self._flow[block.use] >= flow)[block.layers])
        found = self._find(block.use, stages, block.layers, flow)
        if found is None:
            raise ValueError(f"no block of {block} carries {flow} utok/s")
        return found

    def _empty(self) -> NDArray[np.int64]:
        return np.zeros((MAX_BLOCK_STAGES + 1, self.layers + 1), dtype=np.int64)

    def _alone(self, use: Use) -> NDArray[np.int64]:
        table = self._empty()
        rates = self.groups[use.index(1)].rates[: self.layers]
        table[1:, 1 : len(rates) + 1] = np.minimum(rates, self._most)
        return table

    def _side_by_side(self, use: Use) -> NDArray[np.int64]:
        table = self._empty()
        for one, other in _splits(use):
            a, b = self._flow[one], self._flow[other]
            both = np.where((a > 0) & (b > 0), np.minimum(a + b, self._most), 0)
            np.maximum(table, both, out=table)
        return table

    def _in_a_row(self, use: Use) -> NDArray[np.int64]:
        table = self._empty()
        for one, other in _splits(use):
            _in_series(table, self._flow[one], self._flow[other])
        return table

    def _find(
        self, use: Use, stages: int, layers: int, flow: int
    ) -> list[Piece] | None:
        """The structure behind an entry of the table, searched for again."""

        @cache
        def find(use: Use, stages: int, layers: int, flow: int) -> list[Piece] | None:
            if self._flow[use][stages, layers] < flow:
                return None
            if sum(use) == 1:
                return [(use.index(1), 0, layers)]
            for one, other in _splits(use):
                a, b = (
                    self._flow[one][stages, layers],
                    self._flow[other][stages, layers],
                )
                if a and b and a + b >= flow:
                    left = find(one, stages, layers, int(a))
                    right = find(other, stages, layers, int(b))
                    return [*(left or []), *(right or [])]
                for d, w in product(range(1, stages), range(1, layers)):
                    left = find(one, d, w, flow)
                    right = find(other, stages - d, layers - w, flow) if left else None
                    if left and right:
                        return [*left, *((g, w + s, k) for g, s, k in right)]
            return None

        return find(use, stages, layers, flow)


def _uses(counts: Sequence[int]) -> tuple[Use, ...]:
    """Multisets of few nodes, smaller ones first, as many as the work allows."""
    uses: list[Use] = []
    work = 0
    for size in range(1, MAX_BLOCK_NODES + 1):
        new = [use for use in _of_size(counts, size) if sum(use) == size]
        work += sum(1 for use in new for _ in _splits(use)) if size > 1 else 0
        if uses and work > _WORK:
            break
        uses += new
    return tuple(uses)


def _of_size(counts: Sequence[int], size: int) -> Iterator[Use]:
    if not counts:
        yield ()
        return
    for n in range(min(counts[0], size) + 1):
        for rest in _of_size(counts[1:], size - n):
            yield (n, *rest)


def _splits(use: Use) -> Iterator[tuple[Use, Use]]:
    """Two parts that make up the use, each pair once, neither empty."""
    for one in product(*(range(n + 1) for n in use)):
        other = tuple(n - m for n, m in zip(use, one, strict=True))
        if sum(one) and sum(other) and one <= other:
            yield one, other


def _in_series(
    table: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> None:
    """Raise the table to the better of all cuts in two: a first, then b."""
    deep, wide = table.shape
    for d in range(1, deep - 1):
        for w in np.nonzero(a[d] > a[d - 1])[0]:
            rest = np.minimum(a[d, w], b[1 : deep - d, 1 : wide - w])
            part = table[d + 1 :, w + 1 :]
            np.maximum(part, rest, out=part)


def _first(enough: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The fewest stages that are enough, by layers."""
    stages = np.argmax(enough, axis=0)
    return np.where(enough.any(axis=0), stages, _NEVER)


def _one_less(use: Use) -> Iterator[Use]:
    """The use without one of its nodes, for every group; not the empty one."""
    if sum(use) > 1:
        for g, n in enumerate(use):
            if n:
                yield (*use[:g], n - 1, *use[g + 1 :])
