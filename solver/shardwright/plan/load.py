"""Every replica under its share of the requests: what its percentiles are."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from shardwright.cost.law import served
from shardwright.cost.lengths import exact
from shardwright.cost.tails import Station
from shardwright.problem import Design, Figures, PoolRole, Problem
from shardwright.problem.percentiles import PercentileModel
from shardwright.schema.instance import Instance
from shardwright.schema.plan import PercentileClaim, ReplicaLoad


def replica_loads(
    instance: Instance, problem: Problem, designs: Sequence[Design]
) -> list[ReplicaLoad | None]:
    """Loads in the order of the designs; None without targets on percentiles, and
    for a design that keeps them at no rate.

    Requests are split in proportion to the replicas' rates; without a request rate
    every replica runs at its largest.
    """
    model = problem.percentiles
    if model is None:
        return [None] * len(designs)
    rated = [problem.rated(design) for design in designs]
    shares = _shares(instance, problem, rated)
    known: dict[tuple[Station, float], ReplicaLoad | None] = {}
    found = []
    for design, f in zip(designs, rated, strict=True):
        mtok = float(f.rate_mtok_per_s * shares[f.role])
        key = (model.station(design), mtok / 1000 / float(problem.output_mean))
        if key not in known:
            known[key] = _load(model, *key)
        found.append(known[key])
    return found


def _shares(
    instance: Instance, problem: Problem, rated: Sequence[Figures]
) -> dict[PoolRole, Fraction]:
    """Load over rate, per role: the smaller of two pools sets the pace of both."""
    total = served((f.role, f.rate_mtok_per_s) for f in rated)
    asked = instance.workload.request_rate_per_s
    busy = Fraction(1)
    if asked is not None and total:
        busy = min(busy, exact(asked) * 1000 * problem.output_mean / total)
    of: dict[PoolRole, int] = {"mixed": 0, "prefill": 0, "decode": 0}
    for f in rated:
        of[f.role] += f.rate_mtok_per_s
    through = min(of["prefill"], of["decode"])
    return {
        "mixed": busy,
        "prefill": busy * through / max(1, of["prefill"]),
        "decode": busy * through / max(1, of["decode"]),
    }


def _load(
    model: PercentileModel, station: Station, rate_per_s: float
) -> ReplicaLoad | None:
    targets = model.of_role(station.role)
    if not targets or not rate_per_s:
        return None
    tails = model.tails(station, rate_per_s)
    claims = tuple(
        PercentileClaim(
            metric=target.metric,
            percentile=round(float(target.share) * 100, 9),
            predicted_ms=round(target.value_s(tails) * 1000, 6),
        )
        for target in targets
        if target.share != "mean"
    )
    return ReplicaLoad(
        request_rate_per_s=rate_per_s,
        utilisation=tails.utilisation,
        mean_batch=tails.mean_batch,
        knife_edge=tails.knife_edge,
        percentiles=claims,
    )
