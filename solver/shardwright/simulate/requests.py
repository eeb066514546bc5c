"""Requests: when they come, what they bring, and how they are drawn."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.workload import Lengths

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Requests:
    """Arrival times in order, prompt tokens to compute, context and output tokens.

    ``context`` is what the prompt holds in the KV cache, its cached part included.
    """

    arrival_s: FloatArray
    prompt: IntArray
    context: IntArray
    output: IntArray

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, chosen: IntArray) -> Requests:
        """Some of them."""
        return Requests(
            self.arrival_s[chosen],
            self.prompt[chosen],
            self.context[chosen],
            self.output[chosen],
        )


def draw_lengths(
    law: Lengths, count: int, rng: np.random.Generator, most: int | None = None
) -> IntArray:
    """Whole tokens, at least 1 and at most ``most``."""
    if law.constant is not None:
        drawn = np.full(count, float(law.constant))
    elif law.mean is not None and law.cv is not None:
        sigma2 = np.log1p(law.cv**2)
        drawn = rng.lognormal(np.log(law.mean) - sigma2 / 2, np.sqrt(sigma2), count)
    else:
        table = np.array(law.histogram, dtype=np.float64)
        weights = table[:, 1] / table[:, 1].sum()
        drawn = rng.choice(table[:, 0], count, p=weights)
    found: IntArray = np.clip(np.rint(drawn), 1, most).astype(np.int64)
    return found


def arrivals(
    rate_per_s: float, count: int, rng: np.random.Generator, ca2: float = 1.0
) -> FloatArray:
    """Times of a renewal process, gamma between arrivals: ca2 = 1 is Poisson."""
    if ca2 <= 0:
        even: FloatArray = np.arange(count, dtype=np.float64) + rng.random()
        return even / rate_per_s
    between = rng.gamma(1.0 / ca2, ca2 / rate_per_s, count)
    found: FloatArray = np.cumsum(between).astype(np.float64)
    return found


def with_lengths(
    arrival_s: FloatArray,
    inputs: IntArray,
    outputs: IntArray,
    hit_ratio: float = 0.0,
) -> Requests:
    """Requests of which a share of every prompt is cached already."""
    work = np.maximum(np.rint(inputs * (1.0 - hit_ratio)), 1).astype(np.int64)
    return Requests(arrival_s, work, inputs, outputs)


_COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
_MOST_TOKENS = 10**8


def read_trace(path: Path) -> tuple[FloatArray, IntArray, IntArray]:
    """Arrival times from 0, input and output tokens of a CSV file, in time order.

    Lines that begin with # are comments. InvalidInstance names the first bad line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            numbered = [
                (number, line)
                for number, line in enumerate(file, start=1)
                if line.strip() and not line.startswith("#")
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, "file", str(error), "a readable CSV file") from error
    rows = list(csv.reader([line for _, line in numbered]))
    if not rows or tuple(name.strip() for name in rows[0][:3]) != _COLUMNS:
        found = ",".join(rows[0]) if rows else "nothing"
        raise _refused(path, "line 1", found, f"the columns {','.join(_COLUMNS)}")
    lines = [number for number, _ in numbered[1:]]
    table = [_row(path, line, row) for line, row in zip(lines, rows[1:], strict=True)]
    if not table:
        raise _refused(path, "line 2", "no request", "at least one")
    table.sort(key=lambda row: row[0])
    columns = np.array(table)
    return (
        columns[:, 0] - columns[0, 0],
        columns[:, 1].astype(np.int64),
        columns[:, 2].astype(np.int64),
    )


def _row(path: Path, line: int, row: list[str]) -> tuple[float, int, int]:
    try:
        time, tokens, output = float(row[0]), int(row[1]), int(row[2])
    except (ValueError, IndexError):
        time, tokens, output = -1.0, 0, 0
    if not (0 <= time < 1e12 and 1 <= tokens <= _MOST_TOKENS and output >= 1):
        found = ",".join(row)
        allowed = "seconds >= 0, input tokens >= 1, output tokens >= 1"
        raise _refused(path, f"line {line}", found, allowed)
    return time, tokens, min(output, _MOST_TOKENS)


def _refused(path: Path, field: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance(str(path), [FieldError(field, found, allowed)])
