"""Finding the multipliers of a certificate: the chains of ``certificate``, chosen.

LB is concave in mu. A link begins at the multiplier of the last one, moved with the
cap, and climbs; the cheap walk first, a dearer one where the cap falls too little.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.check.certificate import FINE, Link, Verifier
from shardwright.check.certificate_tables import PointRows
from shardwright.check.certificate_walks import SCALE, lower_bound
from shardwright.schema.certificate import Certificate

_FALLS = (970, 985, 1000)
"""A cap has to fall to these thousandths by each walk, or the next is tried."""
_CLIMBS = (5, 7, 7)


@dataclass
class _Chain:
    """Chooses the links of one chain, and remembers them."""

    verifier: Verifier
    links: list[Link]
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
        self.mu = best[1][0] or self.mu
        self.links.append(best[1])
        return best[1]

    def _climb(self, rows: PointRows, theta: int, walk: int, climbs: int) -> int:
        """A multiplier with a large LB: from the last one up or down, then between."""
        known: dict[int, int] = {}

        def at(mu: int) -> int:
            if mu not in known:
                known[mu] = lower_bound(rows, self.verifier.prices, theta, mu, walk)
            return known[mu]

        best, factor = max(1, self.mu), 3.0
        at(0)
        at(best)
        for _ in range(climbs):
            for mu in (int(best * factor), int(best / factor)):
                at(mu)
            best = max(known, key=lambda mu: known[mu]) or best
            factor = factor**0.5
        return max(known, key=lambda mu: (known[mu], -mu))


def with_links(verifier: Verifier, points: list[tuple[int, int]]) -> Certificate:
    """The verifier's certificate with chains for these (M, q)."""
    chains = []
    chunks = verifier.certificate.prefill_chunk_tokens
    for sequences, micro_batches in points:
        links: list[Link] = []
        for rows in verifier.tables.rows(sequences, micro_batches, chunks):
            verifier.chain(rows, _Chain(verifier, links))
        coded = (3 * mu + walk for mu, walk in links)
        chains.append((sequences, micro_batches, *coded))
    return verifier.certificate.model_copy(update={"chains": tuple(chains)})
