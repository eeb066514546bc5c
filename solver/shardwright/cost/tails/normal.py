"""Quantiles of the normal and the Erlang law, for arrays."""

from __future__ import annotations

from functools import cache

import numpy as np

from shardwright.cost.tails.points import Axis, FloatArray, coordinates


@cache
def normal_at(axis: Axis) -> FloatArray:
    """Standard normal quantile of every point's coordinate."""
    return normal_quantile(coordinates(axis))


def erlang_at(stages: FloatArray, axis: Axis) -> FloatArray:
    """Quantiles of sums of exponentials of mean 1: Wilson and Hilferty's cube.

    One exponential is exact.
    """
    normal, share = normal_at(axis), coordinates(axis)
    cube = 1 - 1 / (9 * stages) + normal / (3 * np.sqrt(stages))
    several = stages * np.maximum(cube, 0.0) ** 3
    found: FloatArray = np.where(stages <= 1, -np.log1p(-share), several)
    return found


def gamma_quantile(
    mean: FloatArray, variance: FloatArray, normal: FloatArray
) -> FloatArray:
    """Quantile of a gamma law with these moments, by the same cube.

    ``normal`` is the standard normal quantile of the share.
    """
    shape = mean**2 / np.maximum(variance, 1e-300)
    inverse = 1 / (9 * np.maximum(shape, 1e-9))
    cube = 1 - inverse + normal * np.sqrt(inverse)
    found: FloatArray = mean * np.maximum(cube, 0.0) ** 3
    return found


def normal_quantile(share: FloatArray) -> FloatArray:
    """Standard normal quantile, Acklam's rational approximation (1e-9 relative)."""
    a = (
        -3.969683028665376e01,
        2.209460984245205e02,
        -2.759285104469687e02,
        1.383577518672690e02,
        -3.066479806614716e01,
        2.506628277459239e00,
    )
    b = (
        -5.447609879822406e01,
        1.615858368580409e02,
        -1.556989798598866e02,
        6.680131188771972e01,
        -1.328068155288572e01,
        1.0,
    )
    c = (
        -7.784894002430293e-03,
        -3.223964580411365e-01,
        -2.400758277161838e00,
        -2.549732539343734e00,
        4.374664141464968e00,
        2.938163982698783e00,
    )
    d = (
        7.784695709041462e-03,
        3.224671290700398e-01,
        2.445134137142996e00,
        3.754408661907416e00,
        1.0,
    )
    low = np.minimum(share, 1 - share)
    tail = np.sqrt(-2 * np.log(low))
    outer = np.polyval(c, tail) / np.polyval(d, tail) * np.where(share < 0.5, 1, -1)
    centre = share - 0.5
    square = centre**2
    inner = centre * np.polyval(a, square) / np.polyval(b, square)
    found: FloatArray = np.where(low < 0.02425, outer, inner)
    return found
