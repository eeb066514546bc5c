"""A plan under load: what was asked, what the closed forms say, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from shardwright.cost.tails import Blend, Tails, evaluate, evaluate_pair
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.simulate.fleet import Routing, Served, serve
from shardwright.simulate.measure import (
    WARM_UP,
    Estimate,
    Measured,
    Metric,
    estimate,
    over_seeds,
)
from shardwright.simulate.replica import Fleet, fleet_of, station_of
from shardwright.simulate.requests import Requests
from shardwright.simulate.scenario import Scenario, scenario

METRICS: tuple[Metric, ...] = ("ttft", "prefill", "tpot", "itl", "e2e")
SHARES: tuple[float | Literal["mean"], ...] = ("mean", 0.5, 0.9, 0.99)
DEFAULT_LOAD = 0.8
"""Share of the claimed rate that is simulated where the instance asks for none."""


@dataclass(frozen=True)
class Figure:
    """One latency: seconds predicted (None: no closed form) and simulated."""

    metric: str
    share: float | Literal["mean"]
    limit_s: float | None
    predicted_s: float | None
    simulated: Estimate | None

    @property
    def verdict(self) -> str:
        """holds, missed, close (within the uncertainty) or not simulated."""
        if self.limit_s is None:
            return ""
        if self.simulated is None:
            return "not simulated"
        error = self.simulated.error_s if np.isfinite(self.simulated.error_s) else 0.0
        if self.simulated.value_s - error > self.limit_s:
            return "missed"
        return "holds" if self.simulated.value_s + error <= self.limit_s else "close"

    def as_dict(self) -> dict[str, Any]:
        """Milliseconds."""
        sim = self.simulated
        error = sim.error_s if sim is not None and np.isfinite(sim.error_s) else None
        return {
            "metric": self.metric,
            "percentile": _percent(self.share),
            "limit_ms": _ms(self.limit_s),
            "predicted_ms": _ms(self.predicted_s),
            "simulated_ms": _ms(sim.value_s if sim else None),
            "error_ms": _ms(error),
            "verdict": self.verdict or None,
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or not np.isfinite(seconds) else seconds * 1e3


def _percent(share: float | Literal["mean"]) -> float | Literal["mean"]:
    return share if share == "mean" else round(share * 100, 6)


@dataclass(frozen=True)
class Study:
    """All figures of one plan at one rate."""

    scenario: Scenario
    requests: int
    seeds: int
    routing: str
    targets: tuple[Figure, ...]
    figures: tuple[Figure, ...]
    knife_edge: bool
    stable: bool
    utilisation: float | None
    tokens_per_s: float
    preemptions: int
    default_rate: bool

    @property
    def missed(self) -> bool:
        """Whether the simulation misses a target beyond doubt."""
        return any(target.verdict == "missed" for target in self.targets)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "arrivals": self.scenario.kind,
            "ca2": self.scenario.ca2,
            "request_rate_per_s": self.scenario.rate_per_s,
            "requests_per_seed": self.requests,
            "seeds": self.seeds,
            "routing": self.routing,
            "stable": self.stable,
            "knife_edge": self.knife_edge,
            "utilisation": self.utilisation,
            "output_tokens_per_s": self.tokens_per_s,
            "preemptions": self.preemptions,
            "targets": [figure.as_dict() for figure in self.targets],
            "latencies": [figure.as_dict() for figure in self.figures],
        }


def study(
    instance: Instance,
    plan: Plan,
    *,
    arrivals: str | None = None,
    rate_per_s: float | None = None,
    requests: int = 40_000,
    seeds: int = 5,
    seed: int = 0,
    routing: Routing = "random",
) -> Study:
    """Simulate a plan and set the closed forms beside it.

    InvalidInstance for arrivals that are neither named nor a readable trace.
    """
    fleet = fleet_of(instance, plan)
    asked = rate_per_s or instance.workload.request_rate_per_s
    given = scenario(
        instance.workload,
        rate_per_s or (None if _is_trace(arrivals) else asked),
        arrivals,
        DEFAULT_LOAD * fleet.requests_per_s,
    )
    runs, served = _runs(fleet, given, requests, range(seed, seed + seeds), routing)
    blend = predicted(fleet, given) if given.predictable else None
    known = set(METRICS)
    targets = [
        _figure(
            t.metric,
            t.percentile if t.percentile == "mean" else t.percentile / 100,
            t.limit_ms / 1e3,
            blend,
            runs if t.metric in known else [],
        )
        for t in instance.slo
    ]
    figures = [_figure(m, s, None, blend, runs) for m in METRICS for s in SHARES]
    return Study(
        scenario=given,
        requests=requests,
        seeds=seeds,
        routing=routing,
        targets=tuple(targets),
        figures=tuple(figures),
        knife_edge=blend.knife_edge if blend else False,
        stable=blend.stable if blend else True,
        utilisation=max(p.utilisation for p in blend.parts) if blend else None,
        tokens_per_s=float(np.mean([_tokens_per_s(run) for run in served])),
        preemptions=sum(run.preemptions for run in served),
        default_rate=asked is None and given.kind != "trace",
    )


def _is_trace(arrivals: str | None) -> bool:
    if arrivals is None:
        return False
    return arrivals not in ("poisson", "burst") and not arrivals.startswith("gamma:")


def _runs(
    fleet: Fleet, given: Scenario, requests: int, seeds: Sequence[int], routing: Routing
) -> tuple[list[Measured], list[Served]]:
    shares = [np.array(share) for share in fleet.shares]
    served: list[Served] = []

    def run(rng: np.random.Generator) -> Served:
        drawn = given.draw(requests, rng)
        served.append(serve(fleet.groups, drawn, routing, rng, shares))
        return served[-1]

    warm_up = 0.0 if given.kind == "burst" else WARM_UP
    return over_seeds(run, seeds, warm_up), served


def predicted(fleet: Fleet, given: Scenario) -> Blend:
    """Closed forms of every replica; pools in series by their pairs of shares."""
    lengths, rate, ca2 = given.lengths(), given.rate_per_s, given.ca2
    parts: list[Tails] = []
    weights: list[float] = []
    roles = [group.role for group in fleet.groups]
    if "prefill" in roles:
        at, then = roles.index("prefill"), roles.index("decode")
        before, after = fleet.groups[at], fleet.groups[then]
        for first, share in zip(before.machines, fleet.shares[at], strict=True):
            for second, part in zip(after.machines, fleet.shares[then], strict=True):
                pair = evaluate_pair(
                    replace(
                        station_of(first, "prefill"),
                        kv_transfer_s=before.transfer_s,
                        kv_transfer_s_per_token=before.transfer_s_per_token,
                    ),
                    station_of(second, "decode"),
                    lengths,
                    share * rate,
                    part * rate,
                    ca2,
                )
                parts.append(pair)
                weights.append(share * part)
        return Blend(tuple(parts), tuple(weights))
    for group, shares in zip(fleet.groups, fleet.shares, strict=True):
        for machine, share in zip(group.machines, shares, strict=True):
            # a random split of a bursty stream is less bursty
            thinned = 1 + (ca2 - 1) * share
            station = station_of(machine)
            parts.append(evaluate(station, lengths, share * rate, thinned))
            weights.append(share)
    return Blend(tuple(parts), tuple(weights))


def _figure(
    metric: str,
    share: float | Literal["mean"],
    limit_s: float | None,
    blend: Blend | None,
    runs: list[Measured],
) -> Figure:
    forecast, simulated = None, None
    if metric in METRICS:
        name: Metric = metric
        if blend is not None:
            forecast = (
                blend.mean_s(name) if share == "mean" else blend.quantile_s(name, share)
            )
        if runs:
            simulated = estimate([run.value(name, share) for run in runs])
    return Figure(metric, share, limit_s, forecast, simulated)


def _tokens_per_s(served: Served) -> float:
    requests: Requests = served.requests
    span = float(np.nanmax(served.done_s) - requests.arrival_s[0])
    return float(requests.output.sum()) / max(span, 1e-9)
