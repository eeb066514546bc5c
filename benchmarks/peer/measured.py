"""Measured TPOT against the balanced law over three sources of iteration times.

The tables alone, the tables with the host time of our calibration added, and the
analytic clock; beside them what the peer predicts for the same rows.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from tabulate import tabulate

from benchmarks.peer.cases import DATA
from shardwright.cost.aiconfigurator import measured_system
from shardwright.cost.latencies import StageTimes
from shardwright.cost.lengths import RequestMix
from shardwright.cost.measured import Tables
from shardwright.cost.memory import ONLY
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.silicon import SiliconClock
from shardwright.cost.times import Load, StageClock
from shardwright.ingest import gpu, model
from shardwright.schema.model import ModelSpec, MoeFfn
from shardwright.schema.workload import Precision, Workload

GPU = "H100-SXM"
TABLES, HOST, ANALYTIC, PEER = "tables", "tables + host time", "analytic", "peer"
SOURCES = (TABLES, HOST, ANALYTIC, PEER)
Errors = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One measurement: what was run, the mean TPOT, and the peer's prediction."""

    engine: str
    model: str
    weights: str
    lengths: tuple[int, int]
    sequences: int
    degrees: tuple[int, int, int, int]
    measured_ms: float
    peer_ms: float

    @property
    def group(self) -> str:
        """Rows that are told apart in the table."""
        return f"{self.engine}, {self.model.split('/')[1]}, {self.weights}"

    def errors(self) -> Errors | None:
        """Relative errors by source; None for a shape without tables."""
        spec, shape = model(self.model), self._shape()
        prompt, answer = self.lengths
        mix = _mix(prompt, answer)
        precision = Precision.model_validate({"weights": self.weights})
        tables = _tables(self.engine)
        silicon = SiliconClock(spec, precision, mix, shape, tables)
        if silicon.refusal() is not None:
            return None
        clock = StageClock(spec, precision, mix, gpu(GPU), shape, self.engine)
        load = self._load(mix)
        found = _period_ms(silicon, spec, precision, shape, load)
        costs = gpu(GPU).calibration.engine(self.engine)
        per_sequence = self.sequences * costs.sequence_overhead_us
        host = (costs.step_overhead_us + per_sequence) / 1e3
        analytic = _period_ms(clock, spec, precision, shape, load)
        values = (found, found + host, analytic, self.peer_ms)
        relative = (value / self.measured_ms - 1 for value in values)
        return dict(zip(SOURCES, relative, strict=True))

    def _shape(self) -> StageShape:
        tp, attn_dp, moe_tp, ep = self.degrees
        if any(isinstance(k.ffn, MoeFfn) for k in model(self.model).layer_kinds):
            return StageShape(tp, attn_dp, moe_tp, ep)
        return StageShape.dense(tp)

    def _load(self, mix: RequestMix) -> Load:
        attn_dp = self.degrees[1]
        m = np.array([float(self.sequences * attn_dp)])
        prompts = np.ceil(m * float(mix.prompt_work / mix.output_mean))
        carried = np.array([float(mix.carried_prompt)])
        return Load.balanced(m, prompts, carried, attn_dp)


def rows() -> Iterator[Row]:
    """All measurements of the file."""
    with (DATA / "measured_h100.csv").open(encoding="utf-8", newline="") as file:
        for one in csv.DictReader(file):
            degrees = (one[n] for n in ("tp", "attn_dp", "moe_tp", "ep"))
            tp, attn_dp, moe_tp, ep = map(int, degrees)
            yield Row(
                one["engine"],
                one["model"],
                one["weights"],
                (int(one["input_tokens"]), int(one["output_tokens"])),
                int(one["sequences"]),
                (tp, attn_dp, moe_tp, ep),
                float(one["measured_tpot_ms"]),
                float(one["peer_tpot_ms"]),
            )


def page() -> str:
    """Median error and bias by engine and model, and over all rows."""
    found: defaultdict[str, list[Errors]] = defaultdict(list)
    left_out = 0
    for row in rows():
        errors = row.errors()
        if errors is None:
            left_out += 1
        else:
            found[row.group].append(errors)
    everything = [errors for some in found.values() for errors in some]
    lines = [_line(name, some) for name, some in sorted(found.items())]
    body = tabulate(
        [*lines, _line("all", everything)],
        ["engine, model, weights", "rows", *SOURCES],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * 5),
    )
    text = (
        f"Median absolute error of mean TPOT (median of the signed error), H100. "
        f"{left_out} rows have shapes without tables.\n"
    )
    return f"## Against measurements\n\n{text}\n{body}\n"


def _line(name: str, some: Sequence[Errors]) -> list[str]:
    cells = [np.array([errors[source] for errors in some]) for source in SOURCES]
    shown = [f"{np.median(abs(c)):.1%} ({np.median(c):+.1%})" for c in cells]
    return [name, str(len(some)), *shown]


def _period_ms(
    clock: StageTimes,
    spec: ModelSpec,
    precision: Precision,
    shape: StageShape,
    load: Load,
) -> float:
    total = int(clock.stage_constant(ONLY, load)[0][0])
    for i, kind in enumerate(spec.layer_kinds):
        rank = RankLayer.of(spec, kind, shape, precision)
        total += spec.kind_indices().count(i) * int(clock.layer(rank, load)[0][0])
    return total / 1e6


@cache
def _tables(engine: str) -> Tables:
    return Tables(measured_system(GPU, engine))


@cache
def _mix(prompt: int, answer: int) -> RequestMix:
    document = {
        "input_tokens": {"constant": prompt},
        "output_tokens": {"constant": answer},
        "max_context_tokens": prompt + answer,
    }
    return RequestMix.of(Workload.model_validate(document))
