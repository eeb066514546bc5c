"""Is a plan's bound true? Re-checked in integers, without any solver.

A claim denies a fleet: none of so many GPUs, such cost and such a TPOT earns ``rate``.
For every operating point a chain of caps on TPOT falls from the limit until nothing
fits. At each cap a lower bound LB on the price of a replica shows what one may earn:
rate <= floor((1 + slack) LB) down to the next cap, which the checker computes itself.
Or all labels of the point are tried, exactly. So no replica earns more than 1 + slack
times its price, and no fleet more than that times what the islands are worth. Where
this is not below ``rate``, replicas that earn nearly their price are listed, and all
fleets of them tried. Any multipliers are valid; bad ones prove less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shardwright.check.certificate_fleets import (
    Column,
    FleetSearch,
    Room,
    TooManyFleets,
)
from shardwright.check.certificate_labels import (
    Exam,
    LabelBook,
    Segments,
    TooMany,
    earners,
)
from shardwright.check.certificate_rules import Keeper, RuleBook
from shardwright.check.certificate_tables import PointRows, PointTables
from shardwright.check.certificate_terms import (
    FINE,
    PPB,
    Terms,
    attained,
    fallback,
    prices_of,
    terms_of,
    worth_of,
)
from shardwright.check.certificate_walks import NONE, SCALE, lower_bound
from shardwright.schema.certificate import Certificate, Claim
from shardwright.schema.instance import Instance

_STEPS = 10**4
_WIDEST = 500
"""Forced steps: 10^-4 of the cap, doubled while they last, at most a twentieth."""
_SHIFTS = 64

Link = tuple[int, int]
"""(mu, walk): mu prices a ns of S in 10^-7 mtok/s, walk finds the bound (0: by layers,
1: by units, 2: by segments)."""

Choose = Callable[[PointRows, int, int], Link]
"""(rows, cap, link number) -> multiplier and walk of the next link."""

Points = tuple[tuple[int, int], ...]
"""(M, q) of operating points."""


def link_code(mantissa: int, shift: int, walk: int) -> int:
    """A link as a certificate has it: mu = mantissa 2^shift."""
    return (mantissa * _SHIFTS + shift) * 3 + walk


def link_of(code: int) -> Link:
    """What a code says."""
    rest, walk = divmod(code, 3)
    mantissa, shift = divmod(rest, _SHIFTS)
    return mantissa << shift, walk


@dataclass(frozen=True)
class ClaimProof:
    """What is proven of one goal, in its integer unit.

    bound: proven; None where points are ``missing``. ``claimed``: what the certificate
    claims, which is proven where nothing is ``open``: points where replicas may earn
    more than their price, or, where ``fleets``, fleets that may earn more than claimed.
    """

    goal: str
    bound: int | None
    claimed: int
    links: int
    labelled: int
    columns: int
    open: Points
    missing: Points
    fleets: bool

    @property
    def complete(self) -> bool:
        """Whether nothing of the certificate's own claim rests on a solver."""
        return not (self.open or self.missing or self.fleets)


@dataclass(frozen=True)
class Ended:
    """A point that is done: its links, and what replicas earn at most, in ppb of price.

    ratio_ppb None: nothing is known. forced: caps were lowered by force, or there are
    too many labels. columns: segments -> (rate, GPUs) of the replicas
    that earn nearly their price.
    """

    links: int
    ratio_ppb: int | None
    columns: dict[Segments, tuple[int, int]] = field(default_factory=dict)
    forced: bool = False


@dataclass
class Verifier:
    """One claim over the tables of one instance."""

    tables: PointTables
    claim: Claim
    terms: Terms
    chunks: tuple[int, ...]
    rules: RuleBook
    prices: list[tuple[int, ...]] = field(init=False)
    spare: int | None = field(init=False)
    """What islands are worth above the rate denied, in 10^-6 mtok/s, if anything."""
    columns: dict[Segments, tuple[int, int]] = field(default_factory=dict)
    """Replicas that earn nearly their price, of the last proof: (rate, GPUs)."""
    _books: dict[tuple[tuple[int, int], ...], LabelBook | None] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.prices = prices_of(self.tables, self.claim)
        ratio = PPB + self.claim.slack_ppb
        worth = worth_of(self.tables, self.claim, self.terms)
        over = worth * ratio - self.terms.rate * FINE * PPB
        self.spare = None if over < 0 else -(-over // PPB)

    def least_rate(self, price: int) -> int:
        """A replica of that price counts from this rate on, in mtok/s."""
        most = price * (PPB + self.claim.slack_ppb)
        if self.spare is None:
            return most // (PPB * FINE) + 1
        return max(1, -((self.spare - most // PPB) // FINE))

    def point(self, chain: tuple[int, ...]) -> Ended:
        """One point: the chains of its sets of units, or its labels."""
        if len(chain) == 2:
            return self.labelled(*chain)
        links, worst, forced = 0, 0, False
        for rows in self.tables.rows(chain[0], chain[1], self.chunks):
            ended = self.chain(rows, _given(chain[2 + links :]))
            links, forced = links + ended.links, forced or ended.forced
            if ended.ratio_ppb is None:
                return Ended(links, None)
            worst = max(worst, ended.ratio_ppb)
        return Ended(links, worst, forced=forced)

    def chain(self, rows: PointRows, choose: Choose) -> Ended:
        """From the limit down until nothing fits.

        Where the bound lets the cap not fall it is lowered by force, and what a design
        may earn there counts.
        """
        theta, step, number = self.top(rows), 0, 0
        worst, forced = PPB + self.claim.slack_ppb, False
        while theta > 0:
            mu, walk = choose(rows, theta, number)
            number += 1
            bound = max(0, lower_bound(rows, self.prices, theta, mu, walk))
            if bound >= NONE:
                break
            below = self.below(rows, bound)
            step = 0 if below < theta else max(1, 2 * step)
            if step:
                if not bound and self.given_away:
                    return Ended(number, None)
                forced = True
                below = theta - 1 - min(step, _WIDEST) * theta // _STEPS
                rate = rows.tokens // (max(0, below) + 1)
                ratio = rate * FINE * SCALE * PPB // max(1, bound) + 1
                worst = max(worst, ratio)
            theta = below
        return Ended(number, worst, forced=forced)

    @property
    def given_away(self) -> bool:
        """Whether a segment costs nothing: no ratio bounds what it may earn."""
        return any(0 in row[1:] for row in self.prices)

    def top(self, rows: PointRows) -> int:
        """The cap that chains begin with; above the latter replicas earn nothing."""
        limit = self.terms.tpot_ns
        return rows.tokens if limit is None else min(limit, rows.tokens)

    def below(self, rows: PointRows, bound: int) -> int:
        """The next cap: above it no design of that price earns more than it may."""
        return rows.tokens // self.least_rate(bound // SCALE)

    def following(self, rows: PointRows, theta: int, mu: int, walk: int) -> int | None:
        """The next cap; None where nothing fits any more."""
        bound = lower_bound(rows, self.prices, theta, mu, walk)
        if bound >= NONE:
            return None
        return self.below(rows, max(0, bound)) or None

    def labelled(self, sequences: int, micro_batches: int) -> Ended:
        """All labels of a point, exactly."""
        worst: int | None = PPB + self.claim.slack_ppb
        columns: dict[Segments, tuple[int, int]] = {}
        stages = self.tables.stage_counts(micro_batches)
        variants = self.tables.variants(sequences, micro_batches, self.chunks)
        for rows in self.tables.rows(sequences, micro_batches, self.chunks):
            units = tuple((u.kind, u.gpus) for u in rows.units)
            book, exam = self._laid(units), Exam(rows)
            if book is None:
                return Ended(0, None, forced=True)
            keeper = Keeper(self.rules, exam, variants, self.terms.ttft_ns)
            limit = self.top(rows)
            for found in earners(
                exam, book, stages, limit, self.least_rate, keeper.keeps
            ):
                price, rate = found.laying.price, found.rate
                if worst is not None:
                    ratio = -(-rate * FINE * PPB // price) if price else None
                    worst = None if ratio is None else max(worst, ratio)
                known = columns.get(found.laying.segments, (0, 0))
                columns[found.laying.segments] = max(known, (rate, found.gpus))
        return Ended(0, worst, columns)

    def label_count(self, sequences: int, micro_batches: int) -> int | None:
        """How many labels a point has; None: more than are listed."""
        stages, count = self.tables.stage_counts(micro_batches), 0
        for units in self.tables.unit_sets():
            book = self._book(units)
            if book is None:
                return None
            count += sum(book.sizes[n] for n in stages)
        return count

    def _book(self, units: tuple[tuple[int, int], ...]) -> LabelBook | None:
        """The labels of a set of units; None: too many."""
        if units not in self._books:
            free = tuple(
                sum(size * n for size, n in sizes.items())
                for sizes in self.tables.islands
            )
            most = self.tables.instance.limits.max_pipeline_stages
            try:
                self._books[units] = LabelBook(
                    units,
                    self.prices,
                    free,
                    self.terms.gpus,
                    min(most, self.tables.layers),
                    self.spare is not None,
                )
            except TooMany:
                self._books[units] = None
        return self._books[units]

    def _laid(self, units: tuple[tuple[int, int], ...]) -> LabelBook | None:
        """The labels with all ways to lay them; None: too many."""
        book = self._book(units)
        try:
            assert book is None or book.by_stages is not None
        except TooMany:
            self._books[units] = book = None
        return book

    def fleet_exists(self, columns: dict[Segments, tuple[int, int]]) -> bool:
        """Whether replicas of these columns may earn what the claim denies."""
        ratio = PPB + self.claim.slack_ppb
        cost = self.terms.cost

        def worth(room: Room, gpus: int, left: int) -> int:
            most = worth_of(self.tables, self.claim, Terms(0, gpus, left, None), room)
            return most * ratio // (PPB * FINE)

        def cost_of(segments: Segments) -> int:
            if cost is None:
                return 0
            each = self.tables.costs
            return sum((each[k] or 0) * z for k, z in segments)

        listed = [
            Column(rate, segments, gpus, cost_of(segments))
            for segments, (rate, gpus) in columns.items()
        ]
        room: Room = tuple(tuple(sorted(s.items())) for s in self.tables.islands)
        search = FleetSearch(listed, self.terms.rate, worth)
        try:
            return search.exists(room, self.terms.gpus, cost or 0)
        except TooManyFleets:
            return True

    def prove(self, asked: Points) -> ClaimProof:
        """The claim at the certificate's points, which ``asked`` have to be among."""
        if self.terms.vacuous:
            own = self.claim.bound
            return ClaimProof(self.claim.goal, own, own, 0, 0, 0, (), (), False)
        slack = PPB + self.claim.slack_ppb
        worst, links, labelled = slack, 0, 0
        columns: dict[Segments, tuple[int, int]] = {}
        open_points, missing = [], sorted(set(asked) - self._listed())
        for chain in self.claim.chains:
            ended, at = self.point(chain), (chain[0], chain[1])
            links, labelled = links + ended.links, labelled + (len(chain) == 2)
            for segments, found in ended.columns.items():
                columns[segments] = max(found, columns.get(segments, (0, 0)))
            if ended.ratio_ppb is None:
                missing.append(at)
                continue
            worst = max(worst, ended.ratio_ppb)
            stuck = self.spare is not None and ended.forced
            if stuck or ended.ratio_ppb > slack:
                open_points.append(at)
        self.columns = columns
        fleets = False
        bound: int | None = None
        if not missing:
            bound = fallback(self.tables, self.claim, self.terms, worst)
        if attained(self.claim, bound):
            open_points = []
        elif not (missing or open_points):
            fleets = self.fleet_exists(columns)
        if not (missing or open_points or fleets):
            bound = self.claim.bound
        return ClaimProof(
            self.claim.goal,
            bound,
            self.claim.bound,
            links,
            labelled,
            len(columns),
            tuple(open_points),
            tuple(missing),
            fleets,
        )

    def _listed(self) -> set[tuple[int, int]]:
        return {(chain[0], chain[1]) for chain in self.claim.chains}


def _given(links: tuple[int, ...]) -> Choose:
    """The links of the certificate in order; behind the last one, that again."""

    def choose(rows: PointRows, theta: int, number: int) -> Link:
        return link_of(links[min(number, len(links) - 1)]) if links else (0, 0)

    return choose


def verify(
    instance: Instance,
    certificate: Certificate,
    values: Mapping[str, int] | None = None,
    grid: dict[int, tuple[int, ...]] | None = None,
    chunks: tuple[int, ...] = (),
) -> tuple[ClaimProof, ...]:
    """What the certificate proves of an instance, claim by claim.

    ``values``: the plan's, in the order of the goals. ``grid``: q -> batches that
    have to be covered, with any of ``chunks`` (a result prints both); without them the
    points of the certificate are the claim. Raises NotCovered, ValueError.
    """
    tables = PointTables(instance)
    rules = RuleBook(tables)
    asked = tuple(
        (m, q) for q, batches in (grid or {}).items() for m in batches if m >= q
    )
    return tuple(
        Verifier(
            tables,
            claim,
            terms_of(tables, claim, values or {}),
            chunks or certificate.prefill_chunk_tokens,
            rules,
        ).prove(asked)
        for claim in certificate.claims
    )
