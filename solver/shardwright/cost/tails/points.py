"""A fixed set of points in the unit cube: what expectations are taken over.

The same points serve every evaluation, so a result depends on its arguments alone, and
a figure that grows with the rate at every point also grows in every percentile.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complex128]

_BITS = 13
COUNT = 1 << _BITS
_TOP = 9.21
"""Levels end at 1 - exp(-9.21): one in ten thousand."""
LEVELS = 257
_SEED = 7


class Axis(IntEnum):
    """What each coordinate of a point stands for; the first ones are spread best."""

    PROMPT = 0
    BACKLOG = auto()
    OCCUPANCY = auto()
    OUTPUT = auto()
    RESIDUAL = auto()
    AHEAD = auto()
    STALLS = auto()
    BEHIND = auto()
    AHEAD_SIZE = auto()
    STALL_SIZE = auto()
    NOISE = auto()
    SLOT = auto()
    BEHIND_SIZE = auto()
    DITHER = auto()
    BURST = auto()
    PLACE = auto()


_PRIMITIVE = (
    (1, 0, (1,)),
    (2, 1, (1, 3)),
    (3, 1, (1, 3, 1)),
    (3, 2, (1, 1, 1)),
    (4, 1, (1, 1, 3, 3)),
    (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)),
    (5, 4, (1, 1, 5, 5, 5)),
    (5, 7, (1, 1, 7, 11, 19)),
    (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
    (5, 14, (1, 3, 5, 5, 31)),
    (6, 1, (1, 3, 3, 9, 7, 49)),
    (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)),
)
"""Degree, coefficients and first direction numbers of Sobol's sequence per dimension
after the first (Joe and Kuo, SIAM J. Sci. Comput. 30, 2008)."""


def _directions(dimension: int) -> list[int]:
    if dimension == 0:
        return [1 << (_BITS - 1 - i) for i in range(_BITS)]
    degree, coefficients, first = _PRIMITIVE[dimension - 1]
    m = list(first)
    for i in range(degree, _BITS):
        new = m[i - degree] ^ (m[i - degree] << degree)
        for k in range(1, degree):
            if coefficients >> (degree - 1 - k) & 1:
                new ^= m[i - k] << k
        m.append(new)
    return [m[i] << (_BITS - 1 - i) for i in range(_BITS)]


@cache
def coordinates(axis: Axis) -> FloatArray:
    """Coordinate of every point in (0, 1): Sobol's net, digits scrambled by a matrix.

    A lower triangular binary matrix and a shift, both drawn once from a fixed seed,
    keep the net's balance and break the patterns that its small dimensions share.
    """
    rng = np.random.default_rng((_SEED, int(axis)))
    rows = [int(rng.integers(1 << i)) | 1 << i for i in range(_BITS)]
    shift = int(rng.integers(COUNT))
    found = np.full(COUNT, shift, dtype=np.int64)
    index = np.arange(COUNT, dtype=np.int64)
    for bit, direction in enumerate(_directions(int(axis))):
        found ^= np.where(index >> bit & 1, _scrambled(direction, rows), 0)
    return (found + 0.5) / COUNT


def _scrambled(direction: int, rows: list[int]) -> int:
    """A matrix with ones on its diagonal, applied from the leading digit down."""
    result = 0
    for i, row in enumerate(rows):
        leading = direction >> (_BITS - 1 - i)
        mixed = int(f"{row:b}"[::-1], 2) & leading
        result |= (mixed.bit_count() & 1) << (_BITS - 1 - i)
    return result


def level_grid() -> FloatArray:
    """Probabilities 1 - exp(-v) for equal steps of v: fine in the upper tail."""
    return 1.0 - np.exp(-np.linspace(0.0, _TOP, LEVELS))


def position_of(shares: FloatArray) -> FloatArray:
    """Shares as positions on ``level_grid``, in steps."""
    v = -np.log1p(-shares)
    found: FloatArray = np.minimum(v * ((LEVELS - 1) / _TOP), LEVELS - 1 - 1e-9)
    return found


def steps_of(shares: FloatArray) -> tuple[IntArray, FloatArray]:
    """``position_of`` as the step below and the part of the way to the next."""
    at = position_of(shares)
    below = at.astype(np.int64)
    return below, at - below


@cache
def split(axis: Axis) -> tuple[IntArray, FloatArray]:
    """``steps_of`` the coordinates on an axis."""
    return steps_of(coordinates(axis))
