"""Which experts a measured MoE run woke: routing as the benchmark drew it.

Tables of fused-MoE kernels name how tokens were spread over experts. ``balanced``
deals them round, ``uniform`` is random routing, ``power_law_A`` draws the popularity
of experts from a bounded power law of exponent A, as aiconfigurator's collector does
(between 1 and 0.8·tokens, or 0.01 and 2 where pairs are fewer than experts), and
times the busiest rank.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

DRAWS = 24
SEED = 1


def busiest_rank(
    routing: str, tokens: int, experts: int, top_k: int, ep: int
) -> tuple[float, float]:
    """Experts of the busiest rank with at least one token, and its pairs; means."""
    if routing == "balanced":
        return _balanced(tokens, experts, top_k, ep)
    if routing == "uniform":
        woken = experts / ep * (1 - (1 - top_k / experts) ** tokens)
        return woken, tokens * top_k / ep
    return _power_law(float(routing.removeprefix("power_law_")), tokens, experts,
                      top_k, ep)  # fmt: skip


@lru_cache(maxsize=4096)
def _balanced(tokens: int, experts: int, top_k: int, ep: int) -> tuple[float, float]:
    """Token i takes experts i + j·stride; few tokens are spread over the stride."""
    stride = -(-experts // top_k)
    token = np.arange(min(tokens, experts))[:, None]
    first = token if tokens >= stride else token * stride // tokens
    chosen = (first + np.arange(top_k)[None] * stride) % experts
    mine = chosen[chosen < experts // ep]
    pairs = mine.size if tokens <= experts else tokens * top_k / ep
    return float(np.unique(mine).size), float(pairs)


@lru_cache(maxsize=4096)
def _power_law(
    exponent: float, tokens: int, experts: int, top_k: int, ep: int
) -> tuple[float, float]:
    counts = _drawn_counts(exponent, tokens, experts, top_k)
    per_rank = np.minimum(counts, tokens).reshape(DRAWS, ep, experts // ep)
    busiest = per_rank.sum(axis=2).argmax(axis=1)
    loads = per_rank[np.arange(DRAWS), busiest]
    return float((loads > 0).sum(axis=1).mean()), float(loads.sum(axis=1).mean())


@lru_cache(maxsize=64)
def _drawn_counts(
    exponent: float, tokens: int, experts: int, top_k: int
) -> NDArray[np.int64]:
    """Tokens per expert, DRAWS x experts; rounding goes to the busiest, or is taken
    from the idlest."""
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    power = 1 - exponent
    uniform = np.random.default_rng(SEED).random((DRAWS, experts))
    drawn = ((high**power - low**power) * uniform + low**power) ** (1 / power)
    share = drawn / drawn.sum(axis=1, keepdims=True)
    counts = np.round(share * tokens * top_k).astype(np.int64)
    missing = tokens * top_k - counts.sum(axis=1)
    rank = np.argsort(np.argsort(-counts, axis=1, kind="stable"), axis=1)
    counts = counts + _dealt(missing, rank, experts)
    counts -= _dealt(-missing, experts - 1 - rank, experts)
    kept: NDArray[np.int64] = np.maximum(counts, 0)
    return kept


def _dealt(
    amount: NDArray[np.int64], rank: NDArray[np.int64], experts: int
) -> NDArray[np.int64]:
    """``amount`` of every row (0 if negative) dealt one by one in order of ``rank``."""
    positive = np.maximum(amount, 0)[:, None]
    dealt = np.broadcast_to(positive // experts, rank.shape).astype(np.int64)
    dealt += rank < positive % experts
    return dealt
