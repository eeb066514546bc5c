"""Bounded least absolute log-error: the fit of one curve, and its held-out error.

Levenberg-Marquardt on log(predicted/measured) with iteratively reweighted residuals
(sqrt(1 + (r/0.1)^2) − 1: quadratic within 10%, linear beyond), so that outliers of a
table do not bend the curve. Deterministic: starts are those of the form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.schema.operators import Parameter

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Values = Mapping[str, float]
Model = Callable[[Values, IntArray], FloatArray]
"""Times of the rows of these indices, us, for given parameters."""

SOFT = 0.1
MAX_STEPS = 80
FOLDS = 5
SEED = 20261120


@dataclass(frozen=True)
class Fitted:
    """Parameters of a curve and its absolute percentage errors.

    ``held_out_percent`` has one entry per row, predicted by a fit that saw no row
    of the row's family.
    """

    parameters: dict[str, float]
    fit_percent: FloatArray
    held_out_percent: FloatArray
    families: int
    folds: int


def fit_curve(
    parameters: tuple[Parameter, ...],
    model: Model,
    measured_us: FloatArray,
    families: IntArray,
) -> Fitted:
    """Fit all rows, then every fold from the others. ``families`` numbers the rows."""
    everything = np.arange(measured_us.size)
    start = {p.name: p.start for p in parameters}
    best = _fit(parameters, model, measured_us, everything, start)
    held_out = np.empty_like(measured_us)
    folds = fold_of(families)
    for fold in np.unique(folds):
        seen, hidden = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        # from the form's own start: the full fit has seen the hidden rows
        values = _fit(parameters, model, measured_us, seen, start)
        held_out[hidden] = model(values, hidden)
    return Fitted(
        best,
        percent_error(model(best, everything), measured_us),
        percent_error(held_out, measured_us),
        int(np.unique(families).size),
        int(np.unique(folds).size),
    )


def percent_error(predicted: FloatArray, measured: FloatArray) -> FloatArray:
    """Absolute percentage errors, 100·|predicted/measured − 1|."""
    result: FloatArray = 100 * np.abs(predicted / measured - 1)
    return result


def fold_of(families: IntArray, folds: int = FOLDS) -> IntArray:
    """The fold of every row: families shuffled with a fixed seed, dealt in turn."""
    names, inverse = np.unique(families, return_inverse=True)
    order = np.random.default_rng(SEED).permutation(names.size)
    result: IntArray = (order % min(folds, names.size))[inverse].astype(np.int64)
    return result


def family_numbers(columns: list[FloatArray]) -> IntArray:
    """Rows that agree in all columns get one number."""
    stacked = np.stack(columns, axis=1)
    inverse = np.unique(stacked, axis=0, return_inverse=True)[1]
    return inverse.ravel().astype(np.int64)


def _fit(
    parameters: tuple[Parameter, ...],
    model: Model,
    measured_us: FloatArray,
    rows: IntArray,
    start: Values,
) -> dict[str, float]:
    names = [p.name for p in parameters]
    low = np.array([p.low for p in parameters], dtype=float)
    high = np.array([p.high for p in parameters], dtype=float)
    wanted = np.log(measured_us[rows])

    def residual(values: FloatArray) -> FloatArray:
        named = dict(zip(names, values.tolist(), strict=True))
        times = np.clip(model(named, rows), 1e-9, 1e15)
        result: FloatArray = np.log(times) - wanted
        return result

    first = np.array([start[name] for name in names], dtype=float)
    solved = _descend(residual, np.clip(first, low, high), low, high)
    return {n: _round(v, p) for n, v, p in zip(names, solved, parameters, strict=True)}


def _round(value: float, parameter: Parameter) -> float:
    """Five digits, never beyond the parameter's bounds."""
    return min(max(float(f"{value:.5g}"), parameter.low), parameter.high)


def _loss(residuals: FloatArray) -> float:
    return float(np.sum(np.sqrt(1 + (residuals / SOFT) ** 2) - 1))


def _descend(
    residual: Callable[[FloatArray], FloatArray],
    values: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    damping = 1e-2
    here = residual(values)
    loss = _loss(here)
    for _ in range(MAX_STEPS):
        slope = _jacobian(residual, values, here, high)
        weight = 1 / np.sqrt(1 + (here / SOFT) ** 2)
        curvature = (slope * weight[:, None]).T @ slope
        gradient = (slope * weight[:, None]).T @ here
        for _ in range(10):
            step = _step(curvature, gradient, damping, values, low, high)
            tried = np.clip(values + step, low, high)
            there = residual(tried)
            if (tried_loss := _loss(there)) < loss:
                break
            damping *= 4
        else:
            return values
        gain = loss - tried_loss
        values, here, loss = tried, there, tried_loss
        damping = max(damping / 5, 1e-9)
        if gain < 1e-7 * loss:
            break
    return values


def _jacobian(
    residual: Callable[[FloatArray], FloatArray],
    values: FloatArray,
    here: FloatArray,
    high: FloatArray,
) -> FloatArray:
    slopes = np.empty((here.size, values.size))
    for j in range(values.size):
        width = max(1e-4 * abs(values[j]), 1e-7)
        moved = values.copy()
        moved[j] += width if values[j] + width <= high[j] else -width
        slopes[:, j] = (residual(moved) - here) / (moved[j] - values[j])
    return slopes


def _step(
    curvature: FloatArray,
    gradient: FloatArray,
    damping: float,
    values: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    """A damped step of the parameters that no bound holds back."""
    held = ((values <= low) & (gradient > 0)) | ((values >= high) & (gradient < 0))
    free = np.flatnonzero(~held)
    step = np.zeros_like(values)
    if free.size:
        part = curvature[np.ix_(free, free)]
        damped = part + damping * np.diag(np.diag(part) + 1e-12)
        step[free] = -np.linalg.lstsq(damped, gradient[free], rcond=None)[0]
    return step
