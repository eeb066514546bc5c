"""Tables of measured operators: what a stage iteration is made of, on grids of tokens.

An ``Operator`` is one kernel or collective with its widths; an ``OperatorTimes`` knows
how long it takes. A ``Tables`` asks it once for every operator, on fixed grids, and
interpolates in between, so a compile asks a few thousand times and not millions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_TILE = 128


@dataclass(frozen=True)
class Gemm:
    """One matrix (inner x outer) times the tokens' vectors; ``dtype`` of the weights.

    ``block`` is the side of the blocks that share a scale, 0 with one scale.
    """

    name: ClassVar = "gemm"
    outer: int
    inner: int
    dtype: str
    block: int = 0


@dataclass(frozen=True)
class Elementwise:
    """Reads ``read`` and writes ``written`` values for every token."""

    name: ClassVar = "elementwise"
    read: int
    written: int


@dataclass(frozen=True)
class Embedding:
    """Rows of a table looked up, one per token."""

    name: ClassVar = "embedding"
    rows: int
    width: int


@dataclass(frozen=True)
class PrefillAttention:
    """``tokens`` of the grid are prompt tokens.

    They come in pieces of at most ``piece`` tokens; a token attends to ``attended``
    positions on average, so what precedes a piece of s tokens is attended - s/2 long.
    """

    name: ClassVar = "prefill_attention"
    heads: int
    kv_heads: int
    head_dim: int
    kv_dtype: str
    qk_norm: bool
    window: int
    piece: int
    attended: int


@dataclass(frozen=True)
class DecodeAttention:
    """``tokens`` of the grid are sequences, with ``context`` positions each."""

    name: ClassVar = "decode_attention"
    heads: int
    kv_heads: int
    head_dim: int
    kv_dtype: str
    qk_norm: bool
    context: int


@dataclass(frozen=True)
class LatentBlock:
    """Latent attention with its projections, measured as one block.

    ``heads`` of one rank, ``all_heads`` of the model. With ``decode`` the tokens of the
    grid are sequences of ``context`` positions each; else prompt tokens in pieces, as
    in ``PrefillAttention``.
    """

    name: ClassVar = "latent_attention"
    heads: int
    all_heads: int
    kv_dtype: str
    dtype: str
    block: int
    decode: bool
    context: int
    piece: int
    attended: int


@dataclass(frozen=True)
class AllReduce:
    """The hidden state of every token, summed over ``ranks``."""

    name: ClassVar = "all_reduce"
    width: int
    ranks: int


@dataclass(frozen=True)
class AllGather:
    """``width`` values of every token, gathered from ``ranks``."""

    name: ClassVar = "all_gather"
    width: int
    ranks: int


@dataclass(frozen=True)
class Routed:
    """What experts and their exchange have in common; tokens are of one rank."""

    hidden: int
    intermediate: int
    top_k: int
    experts: int
    moe_tp: int
    ep: int
    attn_dp: int
    dtype: str
    block: int = 0


@dataclass(frozen=True)
class Experts(Routed):
    """The experts of one rank, at the measured skew of their loads."""

    name: ClassVar = "experts"
    gated: bool = True


@dataclass(frozen=True)
class Exchange(Routed):
    """Tokens to their experts (``before``) or back, attention's reduction included."""

    name: ClassVar = "exchange"
    before: bool = True


Operator: TypeAlias = (
    Gemm
    | Elementwise
    | Embedding
    | PrefillAttention
    | DecodeAttention
    | LatentBlock
    | AllReduce
    | AllGather
    | Experts
    | Exchange
)


class NotMeasured(Exception):
    """There are no measurements for an operator; the text says which and why."""


class OperatorTimes(Protocol):
    """A source of measured times."""

    @property
    def identity(self) -> dict[str, str]:
        """What was measured: system, engine and version, package."""

    @property
    def largest_group(self) -> int:
        """Most GPUs that a collective was measured on."""

    def seconds(self, operator: Operator, tokens: int) -> float:
        """Time of one call; NotMeasured where the source has nothing to go by."""


@cache
def coarse_grid() -> tuple[int, ...]:
    """1, 2, ..., 16, then eight steps to every power of two."""
    steps = [step << octave for octave in range(1, 12) for step in range(9, 17)]
    return (*range(1, 17), *steps)


@cache
def token_grid() -> tuple[int, ...]:
    """The coarse grid, and one token more where a kernel starts a further tile."""
    coarse = coarse_grid()
    further = [n + 1 for n in coarse if n % _TILE == 0]
    return tuple(sorted({*coarse, *further}))


def prompt_grid(piece: int) -> tuple[int, ...]:
    """The coarse grid up to a whole piece, then whole pieces."""
    inside = [n for n in coarse_grid() if n < piece]
    whole = [piece * k for k in coarse_grid() if piece * k <= coarse_grid()[-1]]
    return (*inside, *(whole or [piece]))


def grid_of(operator: Operator) -> tuple[int, ...]:
    """Where an operator is asked for."""
    if isinstance(operator, PrefillAttention):
        return prompt_grid(operator.piece)
    if isinstance(operator, LatentBlock) and not operator.decode:
        return prompt_grid(operator.piece)
    if isinstance(operator, Gemm | Experts):
        return token_grid()
    return coarse_grid()


@dataclass(frozen=True, eq=False)
class Tables:
    """Times of operators by tokens; every operator is asked for once."""

    source: OperatorTimes
    _known: dict[Operator, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    def seconds(self, operator: Operator, tokens: FloatArray) -> FloatArray:
        """Times at any number of tokens: linear between grid points.

        Below one token the first holds (weights are read all the same), except for
        attention, which has nothing to do; beyond the grid, in proportion.
        """
        grid, times = self.table(operator)
        found = np.interp(tokens, grid, times)
        found = np.where(tokens > grid[-1], times[-1] * tokens / grid[-1], found)
        if isinstance(operator, PrefillAttention | DecodeAttention | LatentBlock):
            found = np.where(tokens > 0, found, 0.0)
        return np.asarray(found, dtype=np.float64)

    def table(self, operator: Operator) -> tuple[FloatArray, FloatArray]:
        """Grid and seconds. NotMeasured where the source has none."""
        if operator not in self._known:
            grid = grid_of(operator)
            times = [self.source.seconds(operator, n) for n in grid]
            self._known[operator] = np.array(grid, np.float64), np.array(times)
        return self._known[operator]

    def sha256(self, operators: Iterable[Operator]) -> str:
        """Hex digest of the tables of some operators, whatever their order."""
        rows = sorted(
            json.dumps([op.name, asdict(op), *(a.tolist() for a in self.table(op))])
            for op in set(operators)
        )
        text = json.dumps([self.source.identity, rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
