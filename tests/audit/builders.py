"""Claims in a few words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from shardwright.audit import AuditReport, Finding, audit
from shardwright.ingest import load
from shardwright.ingest.validate import validate
from shardwright.schema.claims import Claims
from shardwright.schema.instance import Instance

SEEDS = Path(__file__).parents[2] / "instances" / "seeds"


@cache
def dense() -> Instance:
    """Llama-3-70B on 8 H100."""
    return load(SEEDS / "llama3-70b-8xh100.yaml")


@cache
def mixture() -> Instance:
    """64 experts on 16 GPUs."""
    return load(SEEDS / "moe-30b-16gpu.yaml")


def claims(*items: dict[str, Any], **document: Any) -> Claims:
    """A document of claims; ids are a, b, c... where none is given."""
    named = [
        {"id": chr(ord("a") + i), "line": i + 1, "quote": "said", **item}
        for i, item in enumerate(items)
    ]
    raw = {"document": "a report", "claims": named, **document}
    return validate(Claims, raw, "a report")


def audited(instance: Instance, *items: dict[str, Any], **document: Any) -> AuditReport:
    """The audit of such claims."""
    return audit(instance, claims(*items, **document))


def judged(instance: Instance, item: dict[str, Any], **document: Any) -> Finding:
    """The finding on one claim."""
    return audited(instance, item, **document).findings[0]
