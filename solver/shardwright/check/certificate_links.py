"""Finding the multipliers of a certificate: the chains of ``certificate``, chosen.

LB is concave in mu. A link begins at the multiplier of the last one, moved with the
cap, and climbs; the cheap walk first, a dearer one where the cap falls too little.
Where it does not fall at all, and where labels are few, the point is left to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.check.certificate import Link, Verifier, link_code
from shardwright.check.certificate_tables import PointRows
from shardwright.check.certificate_terms import FINE
from shardwright.check.certificate_walks import SCALE, lower_bound
from shardwright.schema.certificate import Claim

_FALLS = (970, 985, 1000)
"""A cap has to fall to these thousandths by each walk, or the next is tried."""
_CLIMBS = (5, 7, 7)
FEW = 400
"""Labels of a point that are sooner tried than the links of a chain are checked."""
_BITS = 10
"""Of a multiplier: more would only make the file longer."""


class _Stuck(Exception):
    """A cap that no multiplier makes fall."""


def _parts(mu: int) -> tuple[int, int]:
    """mu = mantissa 2^shift, cut to a few bits."""
    shift = max(0, mu.bit_length() - _BITS)
    return mu >> shift, shift


def _coarse(mu: int) -> int:
    mantissa, shift = _parts(mu)
    return mantissa << shift


@dataclass
class _Chain:
    """Chooses the links of one chain, and remembers them."""

    verifier: Verifier
    links: list[Link]
    may_stick: bool
    mu: int = 0
    theta: int = 0

    def __call__(self, rows: PointRows, theta: int, number: int) -> Link:
        if number:
            self.mu = self.mu * self.theta**2 // theta**2
        else:
            self.mu = FINE * SCALE * rows.tokens // theta**2
        self.theta = theta
        best: tuple[int, Link] | None = None
        for walk, (fall, climbs) in enumerate(zip(_FALLS, _CLIMBS, strict=True)):
            mu = self._climb(rows, theta, walk, climbs)
            following = self.verifier.following(rows, theta, mu, walk)
            reached = -1 if following is None else following
            if best is None or reached < best[0]:
                best = reached, (mu, walk)
            if 1000 * reached < fall * theta:
                break
            self.mu = max(mu, self.mu // 8)
        assert best is not None
        if best[0] >= theta and not self.may_stick:
            raise _Stuck
        self.mu = best[1][0] or self.mu
        self.links.append(best[1])
        return best[1]

    def _climb(self, rows: PointRows, theta: int, walk: int, climbs: int) -> int:
        """A multiplier with a large LB: from the last one up or down, then between."""
        known: dict[int, int] = {}

        def at(mu: int) -> None:
            if mu not in known:
                known[mu] = lower_bound(rows, self.verifier.prices, theta, mu, walk)

        best, factor = _coarse(max(1, self.mu)), 3.0
        at(0)
        at(best)
        for _ in range(climbs):
            for mu in (int(best * factor), int(best / factor)):
                at(_coarse(mu))
            best = max(known, key=lambda mu: known[mu]) or best
            factor = factor**0.5
        return max(known, key=lambda mu: (known[mu], -mu))


def with_links(
    verifier: Verifier, points: list[tuple[int, int]], few: int = FEW
) -> Claim:
    """The verifier's claim with proofs at these (M, q).

    Labels where there are ``few`` at most, and where a chain is stuck; else a chain.
    """
    chains: list[tuple[int, ...]] = []
    for point in () if verifier.terms.vacuous else points:
        count = verifier.label_count(*point)
        if count is not None and count <= few:
            chains.append(point)
            continue
        links = _links(verifier, point, may_stick=False)
        if links is None and (count is None or verifier.labelled(*point).forced):
            links = _links(verifier, point, may_stick=True)
        chains.append((*point, *(links or ())))
    return verifier.claim.model_copy(update={"chains": tuple(chains)})


def _links(
    verifier: Verifier, point: tuple[int, int], may_stick: bool
) -> list[int] | None:
    """Codes of a point's links; None where a chain is stuck."""
    links: list[Link] = []
    try:
        for rows in verifier.tables.rows(*point, verifier.chunks):
            verifier.chain(rows, _Chain(verifier, links, may_stick))
    except _Stuck:
        return None
    return [link_code(*_parts(mu), walk) for mu, walk in links]
