"""Prompt tokens that wait when an iteration starts, and those that come meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.cost.tails.compound import burst_cumulant
from shardwright.cost.tails.lengths import LengthLaw
from shardwright.cost.tails.points import FloatArray, level_grid, position_of


@dataclass(frozen=True, eq=False)
class Backlog:
    """Stationary prompt tokens at the start of an iteration, for some batch sizes.

    ``table[i]`` holds the quantiles at ``nodes[i]`` decoding sequences.
    """

    nodes: FloatArray
    table: FloatArray

    def at(
        self, sequences: FloatArray, share: FloatArray, dither: FloatArray
    ) -> FloatArray:
        """Tokens at each point's batch size and share.

        Between two nodes each point takes one of them, by ``dither``: a mean of both
        would break prompts that fill chunks exactly into fractions.
        """
        column = np.ceil(position_of(share)).astype(np.int64)
        if len(self.nodes) == 1:
            only: FloatArray = self.table[0, column]
            return only
        inside = np.clip(sequences, self.nodes[0], self.nodes[-1])
        row = np.searchsorted(self.nodes, inside, side="right") - 1
        row = np.clip(row, 0, len(self.nodes) - 2)
        part = (inside - self.nodes[row]) / (self.nodes[row + 1] - self.nodes[row])
        found: FloatArray = self.table[row + (dither < part), column]
        return found


def backlogs(
    rate_per_s: float,
    prompt: LengthLaw,
    nodes: FloatArray,
    gaps_s: FloatArray,
    beta_s: float,
    chunk: float,
    idles: bool = False,
    ca2: float = 1.0,
) -> Backlog:
    """Backlogs where an iteration with s tokens takes gap + beta s, gap per node.

    Chains over quanta of tokens, embedded at iteration starts: q becomes
    q - min(q, chunk) + what comes meanwhile. ``idles``: with nothing to do, wait for
    the next prompt instead.
    """
    made = [
        _chain(rate_per_s, prompt, float(g), beta_s, chunk, idles, ca2) for g in gaps_s
    ]
    laws = stationary(np.array([chain for chain, _ in made]))
    rows = [_levels(law, quantum) for law, (_, quantum) in zip(laws, made, strict=True)]
    return Backlog(nodes, np.array(rows))


def _levels(law: FloatArray, quantum: float) -> FloatArray:
    cumulative = np.cumsum(law)
    index = np.searchsorted(cumulative, level_grid() * cumulative[-1] - 1e-12)
    found: FloatArray = np.minimum(index, len(law) - 1) * quantum
    return found


_STATES = 112
_BLOCK = 14
_SIZE = 2 * _STATES


def _chain(
    rate_per_s: float,
    prompt: LengthLaw,
    gap_s: float,
    beta_s: float,
    chunk: float,
    idles: bool = False,
    ca2: float = 1.0,
) -> tuple[FloatArray, float]:
    """Transition probabilities between quanta of tokens, and the quantum."""
    quantum = _quantum(rate_per_s, prompt, gap_s, beta_s, chunk, max(ca2, 1.0))
    most = chunk / quantum
    partial = min(int(np.ceil(most)), _STATES)
    lattice = prompt.on_lattice(quantum, _STATES)
    transform = rate_per_s * burst_cumulant(np.fft.rfft(lattice, _SIZE), ca2)
    served = np.minimum(np.arange(partial + 1), most)
    seconds = gap_s + beta_s * quantum * served
    rows = np.fft.irfft(np.exp(np.multiply.outer(seconds, transform)), _SIZE)
    chain = np.zeros((_STATES, _STATES))
    chain[:partial] = rows[:partial, :_STATES]
    if partial < _STATES:
        chain[partial:] = _full_rows(rows[partial], partial, most)
    if idles:
        chain[0] = lattice
    chain = chain.clip(0.0)
    chain[:, -1] += (1.0 - chain.sum(axis=1)).clip(0.0)
    return chain / chain.sum(axis=1, keepdims=True), quantum


def _full_rows(coming: FloatArray, partial: int, most: float) -> FloatArray:
    """Rows of states that fill a chunk: what is left, and what comes meanwhile."""
    first = partial - most
    mixed = (1 - first) * coming[:_STATES]
    mixed[1:] += first * coming[: _STATES - 1]
    # every further state leaves one quantum more: the same row, moved by one
    padded = np.concatenate([np.zeros(_STATES), mixed])
    windows = np.lib.stride_tricks.sliding_window_view(padded, _STATES)
    return windows[_STATES:partial:-1]


def stationary(chains: FloatArray) -> FloatArray:
    """Row vectors v = v P of a stack of chains, states down the second axis.

    States are eliminated ``_BLOCK`` at a time: what is left is the chain watched while
    it is outside of them (Grassmann, Taksar and Heyman 1985, by blocks). Blocks are
    small because the threads of linear algebra libraries cost more than a chain does.
    """
    p, size = chains.copy(), chains.shape[1]
    starts = range(size - _BLOCK, 0, -_BLOCK)
    for start in starts:
        inside = slice(start, start + _BLOCK)
        leaving = np.eye(_BLOCK) - p[:, inside, inside]
        back = np.linalg.solve(leaving, p[:, inside, :start])
        p[:, :start, :start] += p[:, :start, inside] @ back
        visits = np.linalg.solve(_turned(leaving), _turned(p[:, :start, inside]))
        p[:, :start, inside] = _turned(visits)
    first = starts[-1] if starts else size
    found = np.ones(chains.shape[:2])
    staying = np.eye(first - 1) - _turned(p[:, 1:first, 1:first])
    found[:, 1:first] = np.linalg.solve(staying, p[:, 0, 1:first, None])[..., 0]
    for start in reversed(starts):
        inside = slice(start, start + _BLOCK)
        found[:, inside] = (found[:, None, :start] @ p[:, :start, inside])[:, 0]
    total: FloatArray = found.sum(axis=1, keepdims=True)
    return found / total


def _turned(stack: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return stack.transpose(0, 2, 1)


def _quantum(
    rate_per_s: float,
    prompt: LengthLaw,
    gap_s: float,
    beta_s: float,
    chunk: float,
    ca2: float,
) -> float:
    """Coarse enough that the grid holds all but a ten-thousandth of the backlog."""
    work = min(rate_per_s * prompt.mean * beta_s, 0.98)
    lap = gap_s / (1 - work)
    mean = rate_per_s * lap * prompt.mean
    second = prompt.second + (ca2 - 1.0) * prompt.mean**2
    spread = np.sqrt(rate_per_s * lap * second / (1 - work))
    use = min(rate_per_s * prompt.mean * (gap_s / chunk + beta_s), 0.98)
    queue = use * second / (2 * prompt.mean * (1 - use))
    reach = mean + 6 * spread + 9 * queue * use
    tall = float(prompt.values[np.searchsorted(np.cumsum(prompt.weights), 0.9995)])
    tall += 6 * (ca2 - 1.0) * prompt.mean
    return float(max((reach + tall) / (_STATES - 2), prompt.mean / 16))
