"""A certificate: prices and multipliers that prove that no fleet does better."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shardwright.schema.base import SCHEMA_VERSION, Document

Natural = Annotated[int, Field(ge=0)]

ClaimedGoal = Literal["gpus", "cost", "throughput", "tpot", "ttft"]
"""The goals whose bounds can be re-checked."""


class Claim(Document):
    """One bound and what proves it (docs/formulation.md section 10).

    bound: no fleet that keeps the earlier goals does better than this many GPUs,
    10^-6 USD/h, mtok/s or ns. prices: per GPU type the price of a segment of
    z = 1, 2, ... GPUs, in 10^-6 mtok/s; per_gpu is added to them for each GPU, and
    per_cost for each 10^-6 USD/h, in 10^-9 of that unit. slack_ppb: no design earns
    more than 1 + slack_ppb/10^9 times its price. chains: per operating point M, q and
    then its links in order, ``link_code`` of each; a point without links is proven by
    label-setting.
    """

    goal: ClaimedGoal
    bound: Natural
    prices: dict[str, tuple[Natural, ...]]
    per_gpu: Natural = 0
    per_cost: Natural = 0
    slack_ppb: Annotated[int, Field(ge=0, le=10**9)]
    chains: tuple[Annotated[tuple[Natural, ...], Field(min_length=2)], ...]


class Certificate(Document):
    """What the checker needs besides the instance and the plan, goal by goal."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    prefill_chunk_tokens: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)
    ]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
