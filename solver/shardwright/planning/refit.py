"""Three constants of a GPU type refitted on a handful of the user's own runs.

What moves: memory speed (HBM and KV share), compute speed (matmul and attention share)
and fixed costs (overheads, step, start-up of collectives), each by one factor. One
factor on everything does not help; more constants than these do not follow from a few
runs. A refit is kept only where it predicts runs that it has not seen better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.planning.replay import CATALOGUE, Predictor, Resolver
from shardwright.planning.runs import METRICS, columns, read_table
from shardwright.schema.cluster import Calibration, EngineCosts, GpuSpec
from shardwright.schema.errors import FieldError, InvalidInstance

FloatArray = NDArray[np.float64]

MIN_RUNS = 4
FACTORS = ("memory speed", "compute speed", "fixed costs")
_NEEDED = ("engine", "gpu", "model", "tp", "isl", "osl", "mode")
_SETS = ((0, 2), (0, 1, 2))
_SPREAD = 0.25
_HIGHEST = {"memory": 0.95, "compute": 0.9}
_WEIGHT = {"tpot": 1.0, "ttft": 0.5, "throughput": 1.0}
_ROUNDS = 5
_ROUNDS_LEFT_OUT = 3
_STEP = 0.02


@dataclass(frozen=True)
class Refit:
    """The result for one GPU type; errors are mean |log(predicted/measured)|.

    ``left_out`` is the error of runs that the refit has not seen.
    """

    gpu: GpuSpec
    runs: int
    factors: dict[str, float]
    before: dict[str, float]
    left_out: dict[str, float]
    kept: bool

    @property
    def calibration(self) -> Calibration:
        """The constants after the refit, the old ones where it was refused."""
        return self.gpu.calibration


def refit(path: Path, resolver: Resolver = CATALOGUE) -> list[Refit]:
    """Refits every GPU type in a table of runs. Raises InvalidInstance.

    The table has the columns of ``benchmarks/fidelity``'s; models and GPUs are named
    as in the catalogue. At least MIN_RUNS runs of a GPU type are needed.
    """
    missing = [name for name in _NEEDED if name not in columns(path)]
    if missing:
        error = FieldError("(header)", f"no {', '.join(missing)}", ", ".join(_NEEDED))
        raise InvalidInstance(str(path), [error])
    predictor, skipped = Predictor.of(read_table(path), resolver)
    if not predictor.rows:
        found = ", ".join(f"{n} {why}" for why, n in skipped.items()) or "no rows"
        error = FieldError("(table)", found, "runs that can be predicted")
        raise InvalidInstance(str(path), [error])
    names = [d.gpu.name for d in predictor.deployments]
    return [
        _refit_gpu(predictor.only([
            i for i, n in enumerate(names) if n == name and not predictor.rows[i].repeat
        ]))
        for name in sorted(set(names))
    ]  # fmt: skip


def _refit_gpu(runs: Predictor) -> Refit:
    gpu = runs.deployments[0].gpu
    count = len(runs.rows)
    none = np.zeros(len(FACTORS))
    before = _errors(runs, none)
    if count < MIN_RUNS:
        return Refit(gpu, count, {}, before, {}, False)
    every = np.ones(count, dtype=bool)
    whole = [(_fitted(runs, free, every, none, _ROUNDS), free) for free in _SETS]
    tried = [(_left_out(runs, free, theta), theta, free) for theta, free in whole]
    left_out, theta, free = min(tried, key=lambda t: _total(t[0]))
    better = _total(left_out) < _total(before)
    harmed = any(left_out[m] > 1.02 * before[m] + 1e-3 for m in left_out)
    if not better or harmed:
        return Refit(gpu, count, {}, before, left_out, False)
    factors = {FACTORS[k]: float(np.exp(theta[k])) for k in free}
    return Refit(_scaled(gpu, theta), count, factors, before, left_out, True)


def _total(errors: dict[str, float]) -> float:
    return sum(_WEIGHT[m] * e for m, e in errors.items())


def _left_out(
    runs: Predictor, free: Sequence[int], start: FloatArray
) -> dict[str, float]:
    """Mean error of every run under factors fitted on the others."""
    count = len(runs.rows)
    logs = {m: np.full(count, np.nan) for m in METRICS}
    for i in range(count):
        theta = _fitted(runs, free, np.arange(count) != i, start, _ROUNDS_LEFT_OUT)
        found = _logs(runs, theta)
        for metric in METRICS:
            logs[metric][i] = found[metric][i]
    return _means(logs)


def _errors(runs: Predictor, theta: FloatArray) -> dict[str, float]:
    return _means(_logs(runs, theta))


def _means(logs: dict[str, FloatArray]) -> dict[str, float]:
    return {
        m: float(np.nanmean(np.abs(x))) for m, x in logs.items() if np.isfinite(x).any()
    }


def _logs(runs: Predictor, theta: FloatArray) -> dict[str, FloatArray]:
    gpus = {d.gpu.name: _scaled(d.gpu, theta)
            for d in (*runs.deployments, *runs.prefills)}  # fmt: skip
    predicted = runs.predict(gpus)
    return {m: np.log(predicted[m] / runs.measured[m]) for m in METRICS}


def _fitted(
    runs: Predictor,
    free: Sequence[int],
    chosen: NDArray[np.bool_],
    start: FloatArray,
    rounds: int,
) -> FloatArray:
    """Factors' logarithms: damped least squares with a pull towards none."""
    theta = start.copy()

    def residual(at: FloatArray) -> FloatArray:
        logs = _logs(runs, at)
        parts = [
            np.sqrt(_WEIGHT[m]) * logs[m][np.isfinite(logs[m]) & chosen]
            for m in METRICS
        ]
        return np.concatenate(parts)

    for _ in range(rounds):
        now = residual(theta)
        columns = []
        for k in free:
            moved = theta.copy()
            moved[k] += _STEP
            columns.append((residual(moved) - now) / _STEP)
        jacobian = np.stack(columns, axis=1)
        # a run's own scatter is taken as 10%, a factor's prior as _SPREAD
        pull = (0.1 / _SPREAD) ** 2
        normal = jacobian.T @ jacobian + pull * np.eye(len(free))
        gradient = jacobian.T @ now + pull * theta[list(free)]
        step = np.clip(np.linalg.solve(normal, -gradient), -0.3, 0.3)
        theta[list(free)] = np.clip(theta[list(free)] + step, -0.7, 0.7)
    return theta


def _scaled(gpu: GpuSpec, theta: FloatArray) -> GpuSpec:
    """The GPU type with its constants moved by the factors, within physics."""
    memory, compute, fixed = (float(x) for x in np.exp(theta))
    c = gpu.calibration
    top = _HIGHEST
    update: dict[str, Any] = {
        "hbm_efficiency": min(c.hbm_efficiency * memory, top["memory"]),
        "kv_read_efficiency": min(c.kv_read_efficiency * memory, top["memory"]),
        "matmul_efficiency": {
            k: min(e * compute, top["compute"]) for k, e in c.matmul_efficiency.items()
        },
        "attention_efficiency": min(c.attention_efficiency * compute, top["compute"]),
        "layer_overhead_us": c.layer_overhead_us * fixed,
        "step_overhead_us": c.step_overhead_us * fixed,
        "allreduce_latency_us": {
            n: us * fixed for n, us in c.allreduce_latency_us.items()
        },
        "engines": {name: _slower(e, fixed) for name, e in c.engines.items()},
    }
    return gpu.model_copy(update={"calibration": c.model_copy(update=update)})


def _slower(costs: EngineCosts, factor: float) -> EngineCosts:
    return costs.model_copy(
        update={
            "layer_overhead_us": costs.layer_overhead_us * factor,
            "expert_overhead_us": costs.expert_overhead_us * factor,
            "step_overhead_us": costs.step_overhead_us * factor,
        }
    )
