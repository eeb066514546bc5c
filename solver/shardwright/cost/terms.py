"""The formulas of an iteration's parts, on floats or arrays alike (seconds, bytes).

docs/cost-model.md sections 4 and 8. The clock of one stage calls them with the figures
of one GPU type, ``stacked`` with arrays over many deployments: one text of the law.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Figures: TypeAlias = Any
"""A float, or an array of floats that broadcasts with the others of the call."""

FloatArray = NDArray[np.float64]

_TINY = 1e-300


def _array(value: Figures) -> FloatArray:
    return np.asarray(value, dtype=np.float64)


def joined(first: Figures, second: Figures, exponent: Figures) -> FloatArray:
    """Time of two resources used at once: their p-norm; exponent 0: the larger.

    Never below the larger, never above their sum (an exponent is 0 or at least 1).
    """
    high = np.maximum(first, second)
    low = np.minimum(first, second) / np.maximum(high, _TINY)
    power = np.maximum(exponent, 1.0)
    return _array(np.where(exponent == 0, high, high * (1 + low**power) ** (1 / power)))


def prompt_pairs(attended: Figures, ramp: Figures, window: Figures) -> FloatArray:
    """Positions that a prompt token is charged for: those seen, and a ramp.

    The ramp is what short rows of the attention kernel leave unused.
    """
    return _array(np.minimum(attended, window) + ramp)


def context_before(
    prompts: Figures, piece: Figures, attended: Figures, window: Figures
) -> FloatArray:
    """Cached tokens that precede the prompt tokens of an iteration, over all prompts.

    At most ``piece`` tokens are taken of each; the mean of them sees ``attended``.
    """
    taken = np.minimum(np.maximum(prompts, 1.0), piece)
    before = np.minimum(np.maximum(attended - taken / 2, 0.0), window)
    return _array(prompts / taken * before)


def woken(experts: Figures, top_k: Figures, tokens: Figures) -> FloatArray:
    """Share of the experts that some token of the batch visits, uniform routing."""
    return _array(1 - (1 - top_k / experts) ** tokens)


def all_reduce(
    message_bytes: Figures, ranks: Figures, latency: Figures, speed: Figures
) -> FloatArray:
    """Ring all-reduce inside an island; 0 for one rank."""
    volume = 2 * (ranks - 1) / ranks * message_bytes
    return _array(np.where(ranks > 1, latency + volume / speed, 0.0))


def all_gather(
    gathered_bytes: Figures, ranks: Figures, latency: Figures, speed: Figures
) -> FloatArray:
    """All-gather (or reduce-scatter) inside an island; 0 for one rank."""
    volume = (ranks - 1) / ranks * gathered_bytes
    return _array(np.where(ranks > 1, latency + volume / speed, 0.0))


def one_way(
    sent_bytes: Figures,
    inside_copies: Figures,
    across_copies: Figures,
    latency: Figures,
    network_latency: Figures,
    link_speed: Figures,
    network_speed: Figures,
    islands: Figures,
) -> FloatArray:
    """Dispatch or combine of what one GPU sends per copy of its tokens."""
    inside = sent_bytes * inside_copies / link_speed
    across = sent_bytes * across_copies / network_speed
    further = latency + network_latency + np.maximum(inside, across)
    return _array(np.where(islands > 1, further, latency + inside))
