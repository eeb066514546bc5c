"""Which rows are left out together, fixed before any fit."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.fidelity import constants
from benchmarks.fidelity.fitting import Target, fit
from shardwright.planning.replay import Predictor
from shardwright.planning.runs import METRICS, Row

FloatArray = NDArray[np.float64]

_FOLDS = 8
_SAME_RUNS = {"aic": "inferencex"}
"""Two publications of one measuring campaign, by the first word of the source."""


def source_family(row: Row) -> str:
    """The publisher: sources whose names begin with the same word are one family."""
    word = re.split(r"[-_ .]", row.source.lower(), maxsplit=1)[0]
    return _SAME_RUNS.get(word, word)


def model_and_gpu(row: Row) -> str:
    """One of eight folds of whole model x GPU groups."""
    key = f"{row.model_name}|{row.gpu}".encode()
    return f"fold {zlib.crc32(key) % _FOLDS}"


PROTOCOLS: dict[str, Callable[[Row], str]] = {
    "loso": source_family,
    "groups": model_and_gpu,
}


def left_out(
    predictor: Predictor,
    family: Callable[[Row], str],
    rounds: int = 6,
    report: Callable[[str], None] = lambda text: None,
    played: bool = True,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Every row predicted by constants that were fitted without its family.

    Returns the predictions by metric, and the constants by family. ``played``: as in
    ``Predictor.predict``.
    """
    names = [family(r) for r in predictor.rows]
    predicted = {m: np.full(len(names), np.nan) for m in METRICS}
    fitted = {}
    for name in sorted(set(names)):
        outside = [i for i, n in enumerate(names) if n != name]
        inside = [i for i, n in enumerate(names) if n == name]
        theta = np.zeros(constants.COUNT)
        if outside:
            theta = fit(Target.of(predictor.only(outside)), rounds=rounds)
        fitted[name] = theta
        found = predict(predictor.only(inside), theta, played)
        for metric in METRICS:
            predicted[metric][inside] = found[metric]
        report(f"left out {name}: {len(inside)} rows")
    return predicted, fitted


def predict(
    predictor: Predictor, theta: FloatArray, played: bool = True
) -> dict[str, FloatArray]:
    """Predictions under fitted constants."""
    v = constants.physical(theta)
    used = {d.gpu.name for d in (*predictor.deployments, *predictor.prefills)}
    figures = constants.gpus(sorted(used), v)
    return predictor.predict(figures, constants.client(v), played)
