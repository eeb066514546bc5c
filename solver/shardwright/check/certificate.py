"""Is a plan's bound true? Re-checked in integers, without any solver.

For every operating point a chain of caps on TPOT falls from the limit until nothing
fits. At each cap a lower bound LB on the price of a replica shows what one may earn:
rate <= floor((1 + slack) LB) down to the next cap, which the checker computes itself.
So no replica earns more than 1 + slack times its price, and no fleet more than that
times what the islands are worth. Any multipliers are valid; bad ones prove less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from shardwright.check.certificate_tables import PointRows, PointTables
from shardwright.check.certificate_walks import NONE, SCALE, lower_bound
from shardwright.check.exact import exact
from shardwright.schema.certificate import Certificate
from shardwright.schema.instance import Instance

_PPB = 10**9
_STEPS = 10**4
_WIDEST = 500
"""Forced steps: 10^-4 of the cap, doubled while they last, at most a twentieth."""
FINE = 10**6
"""Units of a price in one mtok/s."""

Link = tuple[int, int]
"""(mu, walk)."""

Choose = Callable[[PointRows, int, int], Link]
"""(rows, cap, link number) -> multiplier and walk of the next link."""


@dataclass(frozen=True)
class Proof:
    """What a certificate proves.

    bound: on the goal, in mtok/s or GPUs; None where points are ``missing``. ``open``
    points earn up to ``ratio_ppb`` more than the slack that the certificate claims:
    the bound counts that in, and what is beyond the slack rests on the solver.
    """

    goal: str
    bound: int | None
    claimed_bound: int | None
    links: int
    open: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing of the certificate's own claim rests on a solver."""
        return not self.open and not self.missing


@dataclass(frozen=True)
class Ended:
    """A chain that ended: its links, and what designs earn at most, in ppb of price."""

    links: int
    ratio_ppb: int


@dataclass
class Verifier:
    """Chains over the tables of one instance."""

    tables: PointTables
    certificate: Certificate
    prices: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        each = self.certificate.per_gpu
        self.prices = []
        for k, name in enumerate(self.tables.types):
            room = max(self.tables.islands[k], default=0)
            own = self.certificate.prices.get(name, ())
            if len(own) < room:
                raise ValueError(f"prices of {name}: {len(own)}, {room} are needed")
            self.prices.append(
                [0, *(p + each * (z + 1) for z, p in enumerate(own[:room]))]
            )

    def worth(self) -> int:
        """What all islands can hold of segments, at their prices without per_gpu."""
        total = 0
        for k, name in enumerate(self.tables.types):
            own = [0, *self.certificate.prices[name]]
            for free, count in self.tables.islands[k].items():
                total += count * _knapsack(own, free)
        return total

    def point(self, chain: tuple[int, ...]) -> Ended:
        """The chains of a point, one per set of units."""
        links, worst = 0, 0
        for rows in self.tables.rows(
            chain[0], chain[1], self.certificate.prefill_chunk_tokens
        ):
            ended = self.chain(rows, _given(chain[2 + links :]))
            links, worst = links + ended.links, max(worst, ended.ratio_ppb)
        return Ended(links, worst)

    def chain(self, rows: PointRows, choose: Choose) -> Ended:
        """From the limit down until nothing fits.

        Where the bound lets the cap not fall it is lowered by force, and what a design
        may earn there counts.
        """
        theta, step, number = self.tables.limit_ns, 0, 0
        worst = _PPB + self.certificate.slack_ppb
        while theta > 0:
            mu, walk = choose(rows, theta, number)
            number += 1
            bound = max(0, lower_bound(rows, self.prices, theta, mu, walk))
            if bound >= NONE:
                break
            below = self.below(rows, bound)
            step = 0 if below < theta else max(1, 2 * step)
            if step:
                below = theta - 1 - min(step, _WIDEST) * theta // _STEPS
                rate = rows.tokens // (max(0, below) + 1)
                ratio = rate * FINE * SCALE * _PPB // max(1, bound) + 1
                worst = max(worst, ratio)
            theta = below
        return Ended(number, worst)

    def below(self, rows: PointRows, bound: int) -> int:
        """The next cap: above it no design of that price earns more than it may."""
        most = bound * (_PPB + self.certificate.slack_ppb)
        return rows.tokens // (most // (_PPB * SCALE * FINE) + 1)

    def following(self, rows: PointRows, theta: int, mu: int, walk: int) -> int | None:
        """The next cap; None where nothing fits any more."""
        bound = lower_bound(rows, self.prices, theta, mu, walk)
        if bound >= NONE:
            return None
        return self.below(rows, max(0, bound)) or None


def _given(links: tuple[int, ...]) -> Choose:
    """The links of the certificate in order; behind the last one, that again."""

    def choose(rows: PointRows, theta: int, number: int) -> Link:
        return divmod(links[min(number, len(links) - 1)], 3) if links else (0, 0)

    return choose


def _knapsack(prices: list[int], free: int) -> int:
    best = [0] * (free + 1)
    for room in range(1, free + 1):
        best[room] = best[room - 1]
        for z in range(1, min(room, len(prices) - 1) + 1):
            best[room] = max(best[room], best[room - z] + prices[z])
    return best[free]


def verify(
    instance: Instance,
    certificate: Certificate,
    grid: dict[int, tuple[int, ...]] | None = None,
    chunks: tuple[int, ...] = (),
) -> Proof:
    """What the certificate proves of an instance.

    ``grid``: q -> batches that have to be covered, with any of ``chunks`` (a result
    prints both); without them the points of the certificate are the claim. Raises
    NotCovered, ValueError.
    """
    if chunks:
        certificate = certificate.model_copy(update={"prefill_chunk_tokens": chunks})
    verifier = Verifier(PointTables(instance), certificate)
    unproved, links, worst = [], 0, _PPB + certificate.slack_ppb
    for chain in certificate.chains:
        ended = verifier.point(chain)
        links += ended.links
        if ended.ratio_ppb > _PPB + certificate.slack_ppb:
            unproved.append((chain[0], chain[1]))
            worst = max(worst, ended.ratio_ppb)
    listed = {(chain[0], chain[1]) for chain in certificate.chains}
    asked = {(m, q) for q, batches in (grid or {}).items() for m in batches if m >= q}
    missing = tuple(sorted(asked - listed))
    bounds = [
        _bound(instance, verifier, ratio)
        for ratio in (worst, _PPB + certificate.slack_ppb)
    ]
    return Proof(
        certificate.goal,
        None if missing else bounds[0],
        bounds[1],
        links,
        tuple(unproved),
        missing,
    )


def _bound(instance: Instance, verifier: Verifier, ratio_ppb: int) -> int | None:
    """ratio worth, or the GPUs that the request rate needs at least."""
    c, worth = verifier.certificate, verifier.worth()
    if c.goal == "throughput":
        return None if c.per_gpu else worth * ratio_ppb // (_PPB * FINE)
    rate = instance.workload.request_rate_per_s
    if rate is None or not c.per_gpu:
        return None
    asked = exact(rate) * verifier.tables.mix.mean_output * 1000
    least = asked * FINE * _PPB / ratio_ppb - worth
    return max(0, math.ceil(least / c.per_gpu))
