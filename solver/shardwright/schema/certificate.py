"""A certificate: prices and multipliers that prove that no fleet does better."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shardwright.schema.base import SCHEMA_VERSION, Document

Natural = Annotated[int, Field(ge=0)]


class Certificate(Document):
    """What the checker needs besides the instance (docs/formulation.md section 9).

    prices: per GPU type the price of a segment of z = 1, 2, ... GPUs, in 10^-6 mtok/s;
    per_gpu: added to them per GPU, for the goal gpus. slack_ppb: no design earns more
    than 1 + slack_ppb/10^9 times its price. chains: per operating point M, q and then
    its links in order, each 3 mu + walk: mu prices a nanosecond of S in 10^-7 mtok/s,
    walk finds the bound (0: by layers, 1: by units, 2: by segments).
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    goal: Literal["throughput", "gpus"]
    prices: dict[str, tuple[Natural, ...]]
    per_gpu: Natural = 0
    slack_ppb: Annotated[int, Field(ge=0, le=10**9)]
    prefill_chunk_tokens: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)
    ]
    chains: tuple[Annotated[tuple[Natural, ...], Field(min_length=2)], ...]
