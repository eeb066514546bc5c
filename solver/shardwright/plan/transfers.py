"""Rows of the communication pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operation = Literal[
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "across islands",
    "hop",
    "return",
]


CONTEXT_ROWS = frozenset({"prompt KV", "log-sums", "partials", "states"})
"""What is exchanged within a context group (docs/cost-model.md section 14)."""


@dataclass(frozen=True)
class Transfer:
    """One kind of transfer in one iteration.

    ``count`` transfers of ``bytes_each`` take ``each_ns`` each and ``total_ns`` in
    all (every layer rounded up); ``bytes_each`` is None where only a latency counts.
    """

    count: int
    bytes_each: int | None
    each_ns: int
    total_ns: int


@dataclass(frozen=True)
class Exchange:
    """A row of the communication pattern.

    ``link`` is a technology inside an island, ``network`` between islands;
    ``gbyte_per_s`` what the cost model sustains per direction. A row "across islands"
    is the part of the row above that leaves the island at the same time: it has
    bytes and no time of its own.
    """

    stage: int
    operation: Operation
    what: str
    link: str
    gbyte_per_s: float
    decode: Transfer
    prefill: Transfer
