"""An instance or plan file into its document; the file's references are resolved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from shardwright.ingest.consistency import consistency_errors
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.precheck import precheck
from shardwright.ingest.references import resolve
from shardwright.ingest.validate import attempt, validate
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan

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
    # counts are bounded here, before anything of their size is built
    errors = precheck(raw)
    resolved, unresolved = resolve(raw, source, folder)
    errors += unresolved
    instance, refused = attempt(Instance, resolved)
    named = [error.path for error in errors]
    errors += [e for e in refused if not _said(e.path, named)]
    if instance is None or errors:
        raise InvalidInstance(source, errors)
    if inconsistent := consistency_errors(instance):
        raise InvalidInstance(source, inconsistent)
    return instance


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


def canonical_json(instance: Instance) -> str:
    """The instance in one spelling: sorted keys, no spaces, ASCII."""
    document: dict[str, Any] = instance.model_dump(mode="json", by_alias=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def instance_sha256(instance: Instance) -> str:
    """Hex digest of the canonical JSON, with every catalogue value it uses."""
    return hashlib.sha256(canonical_json(instance).encode()).hexdigest()
