"""The cases: what the peer was asked, its answer, and the same in our words."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwright.cli.options import override
from shardwright.ingest import load
from shardwright.schema.instance import Instance

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Worker:
    """One of the peer's workers: its degrees, and what it is run at.

    ``batch`` is per attention rank, ``context_tokens`` prompt tokens of a mixed step.
    """

    tp: int
    attn_dp: int
    moe_tp: int
    ep: int
    batch: int
    context_tokens: int

    @property
    def gpus(self) -> int:
        """GPUs of the worker."""
        return self.tp * self.attn_dp

    def words(self) -> str:
        """Degrees and batch in short."""
        degrees = f"TP{self.tp}"
        if self.attn_dp > 1 or self.ep > 1:
            degrees += f" DP{self.attn_dp} (experts TP{self.moe_tp} EP{self.ep})"
        return f"{degrees}, batch {self.batch} per rank, {self.context_tokens} prompt"


@dataclass(frozen=True)
class Answer:
    """What a law says of a plan."""

    tokens_per_s_per_gpu: float
    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True)
class Case:
    """One run of the peer.

    ``formats`` are what it was told of number formats beyond the checkpoint's;
    ``apart`` is its answer with prefill and decode apart, where that was its best.
    """

    name: str
    asked: str
    instance_file: str
    gpus: int
    fix: str
    worker: Worker
    answer: Answer
    formats: dict[str, str]
    apart: Answer | None

    @property
    def routed(self) -> bool:
        """Whether the model has experts; without, the peer's degrees of them are 1."""
        return self.worker.attn_dp * self.worker.moe_tp * self.worker.ep > 1

    def instance(self, fix: str | None = None) -> Instance:
        """The instance, with decisions fixed."""
        return override(load(DATA / self.instance_file), fix=fix)


def cases() -> tuple[Case, ...]:
    """All cases, in the order of the file."""
    listed = tomllib.loads((DATA / "cases.toml").read_text(encoding="utf-8"))
    return tuple(_case(entry) for entry in listed["case"])


def _case(entry: dict[str, Any]) -> Case:
    return Case(
        entry["name"],
        entry["asked"],
        entry["instance"],
        entry["gpus"],
        entry["fix"],
        Worker(**entry["worker"]),
        Answer(**entry["answer"]),
        entry.get("formats", {}),
        Answer(**entry["apart"]) if "apart" in entry else None,
    )
