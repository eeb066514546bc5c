"""Exact numbers: what a document writes in decimals is computed with as written."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import lru_cache

from shardwright.schema.workload import BYTES_PER_PARAMETER

Number = int | Fraction

RELATIVE_TOLERANCE = Fraction(1, 10**9)
"""How far a claimed time may lie from the own one before both are rounded."""

_WORKING = Context(prec=40)
_ROUNDED = Context(prec=35)
_KEPT = Context(prec=30, rounding=ROUND_FLOOR)
"""Cut, not rounded: a time that is a whole number of ns is never taken for more."""

NS_PER_S = 10**9
NS_PER_MS = 10**6
NS_PER_US = 10**3


@lru_cache(maxsize=4096)
def exact(value: float) -> Fraction:
    """The decimal as written: 0.85 is 17/20, not the nearest binary fraction."""
    return Fraction(repr(value))


def power_norm(first: Number, second: Number, exponent: float) -> Fraction:
    """max·(1 + (min/max)^p)^(1/p), the factor to 30 digits; p = 0: the larger."""
    small, large = sorted((Fraction(first), Fraction(second)))
    if not small or not exponent:
        return large
    power, ratio = Decimal(repr(exponent)), small / large
    share = _WORKING.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
    grown = _WORKING.add(1, _WORKING.power(share, power))
    factor = _WORKING.power(grown, _WORKING.divide(Decimal(1), power))
    return large * Fraction(_KEPT.plus(_ROUNDED.plus(factor)))


def bytes_per_value(dtype: str) -> Fraction:
    """Bytes of one number of the format; half a byte for four bits."""
    return Fraction(*BYTES_PER_PARAMETER[dtype])


def whole_bytes(value: Number) -> int:
    """Bytes rounded up."""
    return math.ceil(value)


def whole_ns(seconds: Number) -> int:
    """Seconds as nanoseconds, rounded up."""
    return math.ceil(seconds * NS_PER_S)


def us_in_s(microseconds: float) -> Fraction:
    """Microseconds of a document as exact seconds."""
    return exact(microseconds) / 10**6


def ceil_sqrt(value: int) -> int:
    """The smallest integer whose square is at least ``value``."""
    root = math.isqrt(value)
    return root if root * root == value else root + 1


def ratio(part: int, whole: int) -> Fraction:
    """part/whole; 0 of nothing."""
    return Fraction(part, whole) if whole else Fraction(0)


def excess(weighted: list[tuple[int, int]]) -> Fraction:
    """max·ΣG/Σ(G·value) − 1, which is (max − mean)/mean over the GPUs."""
    total = sum(count * value for count, value in weighted)
    gpus = sum(count for count, _ in weighted)
    largest = max(value for _, value in weighted)
    return ratio(largest * gpus, total) - (1 if total else 0)
