"""Best ring and best matching when only the slowest link counts."""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[int]]

_EXACT_RING = 12
_ROTATIONS = 200
_TRIES = 5_000


def best_ring(cost: Matrix) -> int:
    """Least possible largest entry of a ring through all; 0 for one.

    Exact up to 12 ranks, and beyond where the links are nested (an ultrametric) or
    dense; elsewhere a ring found by a bounded search, so never too low.
    """
    count = len(cost)
    if count == 1:
        return 0
    if count == 2:
        return cost[0][1]
    levels = sorted({cost[i][j] for i in range(count) for j in range(i)})
    for level in levels[:-1]:
        near = [
            sum(1 << j for j in range(count) if j != i and cost[i][j] <= level)
            for i in range(count)
        ]
        if _has_ring(near):
            return level
    return levels[-1]


def _has_ring(near: list[int]) -> bool:
    count = len(near)
    degrees = [bits.bit_count() for bits in near]
    if min(degrees) < 2 or not _connected(near):
        return False
    if min(degrees) * 2 >= count:  # Dirac's theorem
        return True
    if count <= _EXACT_RING:
        return _ring_by_masks(near)
    return _ring_by_rotation(near) or _ring_by_search(near)


def _connected(near: list[int]) -> bool:
    seen, edge = 1, 1
    while edge:
        i = edge.bit_length() - 1
        edge &= ~(1 << i)
        new = near[i] & ~seen
        seen |= new
        edge |= new
    return seen == (1 << len(near)) - 1


def _ring_by_masks(near: list[int]) -> bool:
    """Ends of paths from rank 0, for every set of ranks visited."""
    count = len(near)
    ends = {1: 1}
    for _ in range(count - 1):
        grown: dict[int, int] = {}
        for mask, bits in ends.items():
            for j in range(count):
                if not mask >> j & 1 and bits & near[j]:
                    grown[mask | 1 << j] = grown.get(mask | 1 << j, 0) | 1 << j
        ends = grown
    return any(bits & near[0] for bits in ends.values())


def _ring_by_rotation(near: list[int]) -> bool:
    """Posa's rotations: extend a path at its end, else turn its tail around."""
    count = len(near)
    for start in range(count):
        path, inside = [start], 1 << start
        for turn in range(_ROTATIONS):
            ways = near[path[-1]] & ~inside
            if ways:
                # the neighbour with fewest ways on
                bits = (j for j in range(count) if ways >> j & 1)
                j = min(bits, key=lambda k: (near[k] & ~inside).bit_count())
                path.append(j)
                inside |= 1 << j
                continue
            if len(path) == count and near[path[-1]] >> start & 1:
                return True
            ends = [i for i, j in enumerate(path[:-2]) if near[path[-1]] >> j & 1]
            if not ends:
                break
            i = ends[turn * 7919 % len(ends)]
            path[i + 1 :] = path[:i:-1]
    return False


def _ring_by_search(near: list[int]) -> bool:
    """Depth first, fewest ways on first, within a number of tries."""
    count, full = len(near), (1 << len(near)) - 1
    stack, tries = [(0, 1)], 0
    while stack and tries < _TRIES:
        tries += 1
        at, mask = stack.pop()
        if mask == full and near[at] & 1:
            return True
        ways = [j for j in range(count) if near[at] & ~mask & (1 << j)]
        ways.sort(key=lambda j: -(near[j] & ~mask).bit_count())
        stack += [(j, mask | 1 << j) for j in ways]
    return False


def best_matching(cost: Matrix) -> int:
    """Least possible largest entry when every row meets its share of the columns.

    Rows are at most as many as columns; every column has one row, a row at most
    ceil(columns / rows) columns.
    """
    levels = sorted({value for row in cost for value in row})
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if matching(cost, levels[middle]) is None:
            low = middle + 1
        else:
            high = middle
    return levels[low]


def matching(cost: Matrix, level: int) -> list[int] | None:
    """The row of every column, with no entry above ``level``; None if impossible."""
    rows, columns = len(cost), len(cost[0])
    room = -(-columns // rows)
    held: list[list[int]] = [[] for _ in range(rows)]

    def put(column: int, seen: set[int]) -> bool:
        for row in range(rows):
            if row in seen or cost[row][column] > level:
                continue
            seen.add(row)
            if len(held[row]) < room:
                held[row].append(column)
                return True
            for k, other in enumerate(held[row]):
                if put(other, seen):
                    held[row][k] = column
                    return True
        return False

    if not all(put(column, set()) for column in range(columns)):
        return None
    found = [0] * columns
    for row, held_columns in enumerate(held):
        for column in held_columns:
            found[column] = row
    return found
