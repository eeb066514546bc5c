"""What a claim of a certificate denies, and what its prices come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from shardwright.check.certificate_fleets import Room
from shardwright.check.certificate_tables import PointTables
from shardwright.check.exact import exact
from shardwright.schema.certificate import Claim

FINE = 10**6
"""Units of a price in one mtok/s."""
PPB = 10**9
_PER_COST = 10**3
"""Units of ``per_cost`` in a unit of a price."""


@dataclass(frozen=True)
class Terms:
    """No fleet earns ``rate`` mtok/s within GPUs, 10^-6 USD/h, TPOT and TTFT.

    None: any.
    """

    rate: int
    gpus: int
    cost: int | None
    tpot_ns: int | None
    ttft_ns: int | None = None

    @property
    def vacuous(self) -> bool:
        """Whether no replica at all is within them: all take a GPU and time."""
        times = (n for n in (self.tpot_ns, self.ttft_ns) if n is not None)
        return self.gpus < 1 or (self.cost or 0) < 0 or min(times, default=1) < 1


def terms_of(tables: PointTables, claim: Claim, values: Mapping[str, int]) -> Terms:
    """The fleet that a claim denies: better than its bound, as good as goals before.

    values: the plan's, in the order of the goals; none: of a claim of the first goal.
    Raises ValueError for a goal that is not asked for, or whose values lack.
    """
    goals = tuple(values) or tables.instance.goals()[:1]
    if claim.goal not in goals:
        raise ValueError(f"a claim of the goal {claim.goal}")
    before = {goal: values[goal] for goal in goals[: goals.index(claim.goal)]}
    limits, workload = tables.instance.limits, tables.instance.workload
    gpus = [tables.free_gpus - limits.spare_gpus]
    gpus += [n for n in (limits.max_gpus, before.get("gpus")) if n is not None]
    costs = [n for n in (_budget(tables), before.get("cost")) if n is not None]
    caps = [n for n in (tables.limit_ns, before.get("tpot")) if n is not None]
    rates = [1, before.get("throughput", 0)]
    if workload.request_rate_per_s is not None:
        asked = exact(workload.request_rate_per_s) * tables.mix.mean_output * 1000
        rates.append(math.ceil(asked))
    better = claim.bound - 1
    firsts = [n for n in (before.get("ttft"),) if n is not None]
    limited = {"gpus": gpus, "cost": costs, "tpot": caps, "ttft": firsts}
    limited.get(claim.goal, []).append(better)
    if claim.goal == "throughput":
        rates = [claim.bound + 1]
    return Terms(
        max(rates),
        min(gpus),
        min(costs, default=None),
        min(caps, default=None),
        min(firsts, default=None),
    )


def _budget(tables: PointTables) -> int | None:
    most = tables.instance.limits.max_cost_usd_per_hour
    return None if most is None else math.floor(exact(most) * 10**6)


def prices_of(tables: PointTables, claim: Claim) -> list[tuple[int, ...]]:
    """[type][z]: the price of a segment with what its GPUs add; unknown cost adds none.

    Raises ValueError where sizes lack.
    """
    found = []
    for k, name in enumerate(tables.types):
        room = max(tables.islands[k], default=0)
        own = claim.prices.get(name, ())
        if len(own) < room:
            raise ValueError(f"prices of {name}: {len(own)}, {room} are needed")
        cost = tables.costs[k]
        each = claim.per_cost * (cost or 0)
        row = (
            price + z * claim.per_gpu + z * each // _PER_COST
            for z, price in enumerate(own[:room], start=1)
        )
        found.append((0, *row))
    return found


def worth_of(
    tables: PointTables, claim: Claim, terms: Terms, room: Room | None = None
) -> int:
    """What islands can hold of segments, and GPUs and cost are worth, rounded up.

    room: what is free, by default all. Raises ValueError where cost is priced and not
    limited.
    """
    if claim.per_cost and terms.cost is None:
        raise ValueError("a price on cost, which is not limited")
    total = claim.per_gpu * max(0, terms.gpus)
    total -= -claim.per_cost * max(0, terms.cost or 0) // _PER_COST
    for k, name in enumerate(tables.types):
        free = tables.islands[k].items() if room is None else room[k]
        if free:
            values = tables.knapsack(claim.prices[name])
            total += sum(n * values[size] for size, n in free)
    return total


def attained(claim: Claim, bound: int | None) -> bool:
    """Whether a bound is as good as the claim's."""
    if bound is None:
        return False
    return bound <= claim.bound if claim.goal == "throughput" else bound >= claim.bound


def fallback(
    tables: PointTables, claim: Claim, terms: Terms, ratio_ppb: int
) -> int | None:
    """The bound that prices alone prove when replicas earn up to a ratio of theirs.

    For goals to be minimised it is below the claim's own, so that its terms hold.
    """
    if claim.goal == "throughput":
        worth = worth_of(tables, claim, terms)
        return worth * ratio_ppb // (PPB * FINE)
    each = {"gpus": claim.per_gpu * PPB, "cost": claim.per_cost * PPB // _PER_COST}
    price = each.get(claim.goal, 0)
    if not price:
        return 0
    bare = Terms(
        terms.rate,
        0 if claim.goal == "gpus" else terms.gpus,
        0 if claim.goal == "cost" else terms.cost,
        None,
    )
    over = terms.rate * FINE * PPB * PPB // ratio_ppb
    least = -(-(over - worth_of(tables, claim, bare) * PPB) // price)
    return max(0, min(claim.bound, least))
