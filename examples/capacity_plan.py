"""A year of growing traffic: the cheapest fleet of every quarter, and what it moves.

Run from the repository's root: python examples/capacity_plan.py [--quick]

Three GPU types are on offer. Each quarter is solved to a proven least cost; where the
fleet changes, the weights that GPUs have to load are counted, GPUs renamed so that as
few as possible move.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

import shardwright as sw
from shardwright.plan.tables.summary import plan_degrees
from shardwright.resilience.movement import Weights, moved_bytes, relabelled
from shardwright.schema.plan import Replica

OFFER = Path(__file__).parent / "capacity_plan.yaml"
QUARTERS = {"Q1": 6.0, "Q2": 14.0, "Q3": 30.0, "Q4": 55.0}
"""Requests/s at each quarter's peak."""
HOURS = 8760 / 4


@dataclass(frozen=True)
class Quarter:
    """One row of the plan.

    ``moved_gb`` are the weights that GPUs have to load, ``stays`` the replicas that
    the quarter before had on the same GPUs.
    """

    name: str
    rate: float
    status: str
    fleet: str
    gpus: str
    usd_per_hour: float
    bound: float
    moved_gb: float
    stays: int

    @property
    def usd(self) -> float:
        """Rent of the quarter."""
        return self.usd_per_hour * HOURS


def quarters(rates: dict[str, float], time_limit_s: float = 20.0) -> list[Quarter]:
    """The cheapest fleet of every quarter, one after the other."""
    offer, rows, before = sw.load(OFFER), [], None
    for name, rate in rates.items():
        workload = offer.workload.model_copy(update={"request_rate_per_s": rate})
        instance = offer.model_copy(update={"workload": workload})
        solution = sw.solve(instance, time_limit_s=time_limit_s)
        if solution.plan is None:
            raise SystemExit(f"{name}: {solution.status}: nothing on offer holds it")
        plan = solution.plan.document
        if before is not None:
            plan = relabelled(before, plan, islands(instance))
        rows.append(quarter(name, rate, solution, plan, before))
        before = Weights(instance, plan)
    return rows


def quarter(
    name: str,
    rate: float,
    solution: sw.Solution,
    plan: sw.Plan,
    before: Weights | None,
) -> Quarter:
    """The row of one quarter."""
    cost = solution.result.objectives[0]
    stages = [stage for replica in plan.replicas() for stage in replica.stages]
    types = dict.fromkeys(stage.gpu_type for stage in stages)
    count = {t: sum(len(s.gpus) for s in stages if s.gpu_type == t) for t in types}
    held = [] if before is None else [gpus_of(r) for r in before.plan.replicas()]
    return Quarter(
        name,
        rate,
        solution.status.value,
        plan_degrees(solution.plan),
        ", ".join(f"{n} {t}" for t, n in count.items()),
        float(cost.value or 0.0),
        float(cost.bound or 0.0),
        moved_bytes(before, plan) / 1e9 if before is not None else 0.0,
        sum(gpus_of(replica) in held for replica in plan.replicas()),
    )


def islands(instance: sw.Instance) -> list[list[tuple[str, int]]]:
    """GPUs that may be renamed among each other."""
    cluster = instance.cluster
    return [
        [(node, gpu) for gpu in island]
        for group in cluster.nodes
        for node in group.node_names()
        for island in cluster.islands(group)
    ]


def gpus_of(replica: Replica) -> tuple[object, ...]:
    """What a replica is: its layers on its GPUs."""
    return tuple(
        (stage.layers, stage.shape, tuple((g.node, g.gpu) for g in stage.gpus))
        for stage in replica.stages
    )


def text(rows: list[Quarter]) -> str:
    """The plan of the year."""
    heads = ["", "requests/s", "fleet", "GPUs", "USD/h", "bound", "USD", "GB to load",
             "replicas kept", "status"]  # fmt: skip
    cells = [
        [r.name, r.rate, r.fleet, r.gpus, r.usd_per_hour, r.bound, round(r.usd),
         round(r.moved_gb, 1), r.stays, r.status]
        for r in rows
    ]  # fmt: skip
    year = sum(row.usd for row in rows)
    moved = sum(row.moved_gb for row in rows[1:])
    peak = max(row.usd_per_hour for row in rows) * HOURS * len(rows)
    return (
        tabulate(cells, heads)
        + f"\n\nThe year: {year:,.0f} USD, {moved:,.1f} GB of weights to load."
        + f"\nThe last fleet from the start: {peak:,.0f} USD ({peak / year:.2f}x)."
    )


def main() -> None:
    """Prints the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two quarters only")
    rates = QUARTERS
    if parser.parse_args().quick:
        rates = {name: QUARTERS[name] for name in ("Q1", "Q2")}
    print(text(quarters(rates)))


if __name__ == "__main__":
    main()
