"""How a configuration is chosen: our model, aiconfigurator, trivial rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.choice.cases import Case, FloatArray, Option

Rule = Callable[[Case], float]
"""The value of what a rule chooses in a case: measured over the best measured."""


def ranked(case: Case, tpot_ms: FloatArray, rate: FloatArray, margin: float) -> Option:
    """Highest predicted rate per GPU within the limit less a margin.

    Where nothing is predicted to hold it, the lowest predicted TPOT. Of releases of
    which the same is predicted, the one that was measured last.
    """

    def fastest(o: Option) -> tuple[float, str]:
        return _figures(float(rate[o.row]) / o.gpus), o.date

    limit = case.limit_ms
    if limit is not None:
        held = [o for o in case.options if tpot_ms[o.row] * (1 + margin) <= limit]
        if not held:
            return max(case.options, key=lambda o: (-_figures(tpot_ms[o.row]), o.date))
        return max(held, key=fastest)
    return max(case.options, key=fastest)


def _figures(value: float) -> float:
    """Nine significant figures: predictions of one deployment are one number."""
    return float(f"{value:.9g}")


def max_tp(case: Case) -> float:
    """The widest tensor parallelism, at its best load."""
    best = max(case.configurations, key=lambda c: (c[0], c[-1]))
    return case.fallback(best)


def min_tp(case: Case) -> float:
    """The narrowest that was run, on the fewest GPUs, at its best load."""
    best = min(case.configurations, key=lambda c: (c[-1], c[0]))
    return case.fallback(best)


def at_random(case: Case) -> float:
    """The mean over all configurations, each at its best load."""
    return float(np.mean([case.fallback(c) for c in case.configurations]))


TRIVIAL: dict[str, Rule] = {
    "max TP": max_tp,
    "min TP that fits": min_tp,
    "random": at_random,
}
