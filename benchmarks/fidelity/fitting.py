"""Regularised robust least squares of the constants on a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.fidelity import constants
from benchmarks.fidelity.score import group_name
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import METRICS

FloatArray = NDArray[np.float64]

METRIC_WEIGHT = {"tpot": 1.4, "ttft": 0.5, "throughput": 1.0}
_ROWS_PER_GROUP = 14
_SCALE = 0.15
_PRIOR_WEIGHT = 0.6
_STEP = 0.05


@dataclass(frozen=True)
class Target:
    """Rows to fit, and the weight of every published figure of theirs."""

    predictor: Predictor
    weights: dict[str, FloatArray]

    @classmethod
    def of(cls, predictor: Predictor, seed: int = 0) -> Target:
        """Groups count nearly alike whatever their size; large ones are thinned."""
        chosen = _thinned(predictor, np.random.default_rng(seed))
        some = predictor.only(chosen)
        weights = {}
        for metric in METRICS:
            known = np.isfinite(some.measured[metric])
            names = [group_name(r) for r in some.rows]
            count: dict[str, int] = {}
            for name, k in zip(names, known, strict=True):
                count[name] = count.get(name, 0) + int(k)
            weights[metric] = np.array(
                [METRIC_WEIGHT[metric] / max(count[n], 1) ** 0.7 * k
                 for n, k in zip(names, known, strict=True)]
            )  # fmt: skip
        return cls(some, weights)

    def residuals(self, theta: FloatArray) -> FloatArray:
        """Logarithms of predicted over measured, all metrics one after another."""
        v = constants.physical(theta)
        names = [
            d.gpu.name for d in (*self.predictor.deployments, *self.predictor.prefills)
        ]
        predicted = self.predictor.predict(
            constants.gpus(names, v), constants.client(v)
        )
        parts = []
        for metric in METRICS:
            known = np.isfinite(self.predictor.measured[metric])
            ratio = predicted[metric][known] / self.predictor.measured[metric][known]
            parts.append(np.log(np.maximum(ratio, 1e-6)))
        everything: FloatArray = np.concatenate(parts)
        everything[~np.isfinite(everything)] = 5.0
        return everything

    def row_weights(self) -> FloatArray:
        """Weights in the order of the residuals."""
        measured = self.predictor.measured
        return np.concatenate(
            [self.weights[m][np.isfinite(measured[m])] for m in METRICS]
        )


def _thinned(predictor: Predictor, random: np.random.Generator) -> list[int]:
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(predictor.rows):
        if row.repeat or not row.mapping_known:
            continue
        groups.setdefault(group_name(row), []).append(i)
    chosen: list[int] = []
    for at in groups.values():
        order = random.permutation(len(at))[:_ROWS_PER_GROUP]
        chosen += [at[i] for i in order]
    return sorted(chosen)


def fit(
    target: Target,
    start: FloatArray | None = None,
    rounds: int = 7,
    report: Callable[[str], None] = lambda text: None,
) -> FloatArray:
    """Damped Gauss-Newton with weights of a robust loss and the priors' pull."""
    low, high = constants.theta_bounds()
    theta = np.zeros(constants.COUNT) if start is None else start.copy()
    weight, damping = target.row_weights(), 0.3
    residual = target.residuals(theta)
    loss = _loss(residual, weight, theta)
    for turn in range(rounds):
        jacobian = _jacobian(target, theta, residual, high)
        robust = weight / np.sqrt(1 + (residual / _SCALE) ** 2)
        normal = jacobian.T @ (robust[:, None] * jacobian) / _SCALE**2
        gradient = jacobian.T @ (robust * residual) / _SCALE**2 + _PRIOR_WEIGHT * theta
        normal += _PRIOR_WEIGHT * np.eye(constants.COUNT)
        for _ in range(4):
            step = np.linalg.solve(
                normal + damping * np.diag(np.diag(normal)), -gradient
            )
            step = np.clip(step, -1.5, 1.5)
            trial = np.clip(theta + step, low, high)
            found = target.residuals(trial)
            value = _loss(found, weight, trial)
            if value < loss:
                theta, residual, loss = trial, found, value
                damping = max(damping / 3, 1e-3)
                break
            damping *= 4
        report(f"round {turn + 1}: loss {loss:.3f}")
    return theta


def _loss(residual: FloatArray, weight: FloatArray, theta: FloatArray) -> float:
    scaled = np.sqrt(1 + (residual / _SCALE) ** 2) - 1
    return float((weight * scaled).sum() + 0.5 * _PRIOR_WEIGHT * (theta**2).sum())


def _jacobian(target: Target, theta: FloatArray, residual: FloatArray,
              high: FloatArray) -> FloatArray:  # fmt: skip
    columns = []
    for i in range(theta.size):
        step = -_STEP if theta[i] + _STEP > high[i] else _STEP
        moved = theta.copy()
        moved[i] += step
        columns.append((target.residuals(moved) - residual) / step)
    return np.stack(columns, axis=1)
