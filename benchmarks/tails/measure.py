"""One operating point: closed forms, simulator, and the time of both."""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time

import numpy as np

from shardwright.cost.tails import Tails, evaluate, evaluate_pair
from shardwright.simulate import Measured, serve
from shardwright.simulate.measure import Estimate, estimate
from shardwright.simulate.requests import with_lengths

from .points import Burst, Point

FIGURES = (
    ("ttft", 0.5),
    ("ttft", 0.99),
    ("tpot", 0.5),
    ("tpot", 0.99),
    ("itl", 0.5),
    ("itl", 0.99),
    ("e2e", 0.99),
)


@dataclass(frozen=True)
class Row:
    """Predicted and simulated figures of one point, in seconds."""

    point: Point
    rate_per_s: float
    predicted: tuple[float, ...]
    simulated: tuple[Estimate, ...]
    slots_full: float
    closed_cpu_s: float
    simulator_cpu_s: float

    def error(self, figure: int) -> float:
        """Relative error of a prediction."""
        return self.predicted[figure] / self.simulated[figure].value_s - 1

    @property
    def slot_bound(self) -> bool:
        """Whether slots fill up in more than a thousandth of the time."""
        return self.slots_full > 0.001


def closed(point: Point) -> Tails:
    """The closed forms at a point."""
    rate = point.rate_per_s
    if point.kind == "pools":
        prefill, decode = point.replicas
        return evaluate_pair(
            point.station("prefill"),
            point.station("decode"),
            point.lengths,
            rate / prefill,
            rate / decode,
        )
    return evaluate(point.station(), point.lengths, rate)


def row(point: Point, requests: int, seeds: int) -> Row:
    """Both answers; the closed forms' CPU is that of a second call, caches warm."""
    for _ in range(2):
        start = process_time()
        tails = closed(point)
        predicted = tuple(tails.quantile_s(*figure) for figure in FIGURES)  # type: ignore[arg-type]
        closed_cpu = process_time() - start
    start = process_time()
    runs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        served = serve(point.groups(), point.draw(requests, rng), "random", rng)
        runs.append(Measured.of(served))
    cpu = process_time() - start
    simulated = tuple(
        estimate([run.value(*figure) for run in runs])  # type: ignore[arg-type]
        for figure in FIGURES
    )
    full = tails.slots_full
    return Row(point, point.rate_per_s, predicted, simulated, full, closed_cpu, cpu)


def burst(case: Burst, seeds: int) -> tuple[Estimate, ...]:
    """Simulated figures of a burst, and the time until all are done, in seconds."""
    point = case.station_point()
    runs, spans = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        lengths = (
            case.prompt.sample(case.count, rng),
            case.output.sample(case.count, rng),
        )
        served = serve(
            point.groups(), with_lengths(np.zeros(case.count), *lengths), "random", rng
        )
        runs.append(Measured.of(served, warm_up=0.0))
        spans.append(float(served.done_s.max()))
    figures = [estimate([run.value(*figure) for run in runs]) for figure in FIGURES]  # type: ignore[arg-type]
    return (*figures, estimate(spans))
