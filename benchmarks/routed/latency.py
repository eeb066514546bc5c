"""An assumed network latency, to see what depth costs where nothing was published."""

from __future__ import annotations

from collections.abc import Iterable

from shardwright.problem.routed import SINK, SOURCE, RoutedProblem

NEAR_MS = 1.0
SLOW_MS = 50.0
_SLOW_UTOK = 2_000 * 10**6
"""Links below 2,000 tokens/s join regions in this suite; the others have 60,000."""


def network_ms(
    problem: RoutedProblem, routes: Iterable[tuple[tuple[int, ...], float]]
) -> float:
    """Mean over the flow: 1 ms a hop, 50 ms over a slow link."""
    spent, total = 0.0, 0.0
    for nodes, rate in routes:
        hops = zip((SOURCE, *nodes), (*nodes, SINK), strict=True)
        slow = [problem.links[hop] < _SLOW_UTOK for hop in hops]
        spent += rate * sum(SLOW_MS if is_slow else NEAR_MS for is_slow in slow)
        total += rate
    return spent / total if total else 0.0
