"""Choices that published runs can judge: one workload on many configurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.planning.run_names import weight_format
from shardwright.planning.runs import Row

FloatArray = NDArray[np.float64]

TPOT_LIMITS_MS = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0)
MIN_CONFIGURATIONS = 4


@dataclass(frozen=True)
class Option:
    """One measured run: a configuration at a load; output tokens/s per GPU.

    ``date`` is when it was measured, empty where that is not published.
    """

    row: int
    configuration: tuple[int, ...]
    gpus: int
    tp: int
    measured_rate: float
    measured_tpot_ms: float
    date: str = ""


@dataclass(frozen=True)
class Case:
    """Options of one workload on one GPU type and engine, under a TPOT limit."""

    name: str
    options: tuple[Option, ...]
    limit_ms: float | None

    def feasible(self, option: Option) -> bool:
        """Whether the option was measured within the limit."""
        return self.limit_ms is None or option.measured_tpot_ms <= self.limit_ms

    @property
    def best(self) -> float:
        """Highest measured rate within the limit."""
        return max(o.measured_rate for o in self.options if self.feasible(o))

    def value(self, option: Option) -> float:
        """Measured rate over the best; 0 where the limit is broken."""
        return option.measured_rate / self.best if self.feasible(option) else 0.0

    def fallback(self, configuration: tuple[int, ...]) -> float:
        """The same at the configuration's best load within the limit."""
        held = [o for o in self.options
                if o.configuration == configuration and self.feasible(o)]  # fmt: skip
        return max((self.value(o) for o in held), default=0.0)

    @property
    def configurations(self) -> list[tuple[int, ...]]:
        """The distinct configurations, in order."""
        return sorted({o.configuration for o in self.options})


def output_rate(row: Row) -> float | None:
    """Published output tokens/s, else by Little's law from the mean latencies."""
    if row.throughput:
        return row.throughput
    if row.mode == "closed_loop" and row.concurrency and row.tpot_ms and row.ttft_ms:
        life_s = (row.ttft_ms + (row.output_tokens - 1) * row.tpot_ms) / 1e3
        return row.concurrency * row.output_tokens / life_s
    return None


def _key(row: Row, any_release: bool) -> tuple[object, ...]:
    release = "any release" if any_release else row.version
    return (
        row.source,
        row.model_name,
        row.gpu,
        f"{row.engine} {release}".strip(),
        weight_format(row),
        row.input_tokens,
        row.output_tokens,
        row.mode,
    )


def _configuration(row: Row) -> tuple[int, ...]:
    w = row.worker
    return (w.tp, w.pp, w.attn_dp, w.ep, w.moe_tp or 0, row.gpus)


def cases(rows: Sequence[Row], any_release: bool = False) -> Iterator[Case]:
    """All cases, in order of their names; runs of one option count by their median.

    One engine release is one piece of software, unless ``any_release`` joins them; a
    configuration is then an option in each of its releases.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if row.repeat or row.prefill is not None:
            continue
        if row.mode in ("closed_loop", "offline_max"):
            groups.setdefault(_key(row, any_release), []).append(i)
    for key, at in sorted(groups.items(), key=lambda item: str(item[0])):
        options = _options(rows, at, any_release)
        if len({o.configuration for o in options}) < MIN_CONFIGURATIONS:
            continue
        name = "|".join(str(k) for k in key)
        if key[-1] == "offline_max":
            yield Case(name, options, None)
            continue
        for limit in TPOT_LIMITS_MS:
            if any(o.measured_tpot_ms <= limit for o in options):
                yield Case(f"{name}|tpot<={limit:g}ms", options, limit)


def _options(
    rows: Sequence[Row], at: list[int], any_release: bool
) -> tuple[Option, ...]:
    repeats: dict[tuple[object, ...], list[int]] = {}
    for i in at:
        row = rows[i]
        offline = row.mode == "offline_max"
        if output_rate(row) is None or (not offline and row.tpot_ms is None):
            continue
        release = (row.version or row.date[:7]) if any_release else ""
        key = (_configuration(row), row.concurrency, release)
        repeats.setdefault(key, []).append(i)
    found = []
    for same in repeats.values():
        rates = [output_rate(rows[i]) or 0.0 for i in same]
        tpots = [rows[i].tpot_ms or 0.0 for i in same]
        row = rows[same[0]]
        found.append(
            Option(same[0], _configuration(row), row.gpus, row.worker.tp,
                   float(np.median(rates)) / row.gpus, float(np.median(tpots)),
                   row.date)
        )  # fmt: skip
    return tuple(found)
