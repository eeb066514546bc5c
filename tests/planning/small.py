"""A small instance that every planning test can vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import shardwright as sw
from shardwright.schema.instance import Instance

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHAT = EXAMPLES / "chat-8b.yaml"
RATE = "workload.request_rate_per_s"
LIMIT = "slo.0.limit_ms"


def chat(**update: Any) -> Instance:
    """The 8B model on 8 H100; update is of the instance's own fields."""
    return sw.load(CHAT).model_copy(update=update)


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is measured."""
    return {k: v for k, v in row.items() if k not in ("seconds", "attempts")}
