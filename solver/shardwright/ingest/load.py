"""An instance or plan file into its document; the file's references are resolved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from shardwright.ingest import catalogue
from shardwright.ingest.consistency import consistency_errors
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.precheck import precheck
from shardwright.ingest.references import resolve, with_cluster
from shardwright.ingest.validate import attempt, validate
from shardwright.schema.certificate import Certificate
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue, Result

MAX_PLAN_BYTES = 64 * 10**6
MAX_PLAN_VALUES = 5_000_000


def load(path: str | Path) -> Instance:
    """The complete instance of a YAML or JSON file.

    Raises InvalidInstance, and nothing else, naming every refused field with what
    was found and what is allowed.
    """
    path = Path(path)
    return load_bytes(read_file(path), str(path), path.parent)


def load_bytes(data: bytes, source: str, folder: Path) -> Instance:
    """As ``load``, for a file's bytes; ``folder`` is where its paths start."""
    raw = parse(data, source)
    raw, errors = with_cluster(raw, folder)
    # counts are bounded here, before anything of their size is built
    errors += precheck(raw)
    resolved, unresolved = resolve(raw, source, folder)
    errors += unresolved
    instance, refused = attempt(Instance, resolved)
    named = [error.path for error in errors]
    errors += [e for e in refused if not _said(e.path, named)]
    if instance is None or errors:
        raise InvalidInstance(source, errors)
    if inconsistent := consistency_errors(instance):
        raise InvalidInstance(source, inconsistent)
    return _with_margin(instance)


def _with_margin(instance: Instance) -> Instance:
    """``latency_margin`` of the catalogue where the file gives none."""
    if instance.limits.latency_margin is not None:
        return instance
    known = catalogue.shared("intervals").get("latency_margin", {})
    limits = instance.limits.model_copy(
        update={"latency_margin": float(known.get("share", 0.0))}
    )
    return instance.model_copy(update={"limits": limits})


def _said(path: str, named: list[str]) -> bool:
    """Whether a field at or below ``path`` has been named already."""
    return any(name == path or name.startswith(f"{path}.") for name in named)


def load_plan(path: str | Path) -> Plan:
    """The plan of a file: a bare plan, or a result with a ``plan``.

    Raises InvalidInstance.
    """
    path = Path(path)
    source = str(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), source, MAX_PLAN_VALUES)
    if "plan" in raw and "pools" not in raw:
        return validate(Plan, raw["plan"], source, "plan")
    return validate(Plan, raw, source)


def load_result(path: str | Path) -> Result:
    """A result file. Raises InvalidInstance."""
    path = Path(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), str(path), MAX_PLAN_VALUES)
    return validate(Result, raw, str(path))


def says_infeasible(path: str | Path) -> bool:
    """Whether a file is the result that no plan exists."""
    path = Path(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), str(path), MAX_PLAN_VALUES)
    return raw.get("status") == "INFEASIBLE" and raw.get("plan") is None


def load_objectives(path: str | Path) -> tuple[ObjectiveValue, ...]:
    """The goals of a result file, with values and bounds; () in a bare plan."""
    path = Path(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), str(path), MAX_PLAN_VALUES)
    if "plan" not in raw or "pools" in raw:
        return ()
    return validate(Result, raw, str(path)).objectives


def load_grid(path: str | Path) -> dict[str, Any] | None:
    """The grid that a result file prints; None in a bare plan."""
    path = Path(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), str(path), MAX_PLAN_VALUES)
    grid = raw.get("grid") if "plan" in raw else None
    return grid if isinstance(grid, dict) else None


def load_certificate(path: str | Path) -> Certificate:
    """A certificate file. Raises InvalidInstance."""
    path = Path(path)
    raw = parse(read_file(path, MAX_PLAN_BYTES), str(path), MAX_PLAN_VALUES)
    return validate(Certificate, raw, str(path))


def canonical_json(instance: Instance) -> str:
    """The instance in one spelling: sorted keys, no spaces, ASCII."""
    document: dict[str, Any] = instance.model_dump(mode="json", by_alias=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def instance_sha256(instance: Instance) -> str:
    """Hex digest of the canonical JSON, with every catalogue value it uses."""
    return hashlib.sha256(canonical_json(instance).encode()).hexdigest()
