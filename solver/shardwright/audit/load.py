"""A claims file into its document."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from shardwright.ingest.document import parse, read_file
from shardwright.ingest.validate import attempt
from shardwright.schema.base import Document
from shardwright.schema.claims import Claim, Claims
from shardwright.schema.errors import FieldError, InvalidInstance


def load_claims(path: str | Path) -> Claims:
    """The claims of a YAML or JSON file, read as strictly as an instance.

    Raises InvalidInstance naming every refused field.
    """
    path = Path(path)
    source = str(path)
    raw = parse(read_file(path), source)
    claims, refused = attempt(Claims, raw)
    if claims is None:
        raise InvalidInstance(source, _by_kind(raw, refused))
    return claims


def _by_kind(raw: Any, refused: list[FieldError]) -> list[FieldError]:
    """Errors of a claim by its own type, which names that type's fields only."""
    kinds = _kinds()
    items = raw.get("claims")
    own: list[FieldError] = []
    for i, item in enumerate(items if isinstance(items, list) else []):
        kind = kinds.get(str(item.get("type"))) if isinstance(item, dict) else None
        if kind is not None:
            own += attempt(kind, item, f"claims.{i}")[1]
    told = {_claim(error) for error in own}
    return [error for error in refused if _claim(error) not in told] + own


def _claim(error: FieldError) -> tuple[str, ...]:
    return tuple(error.path.split(".")[:2])


def _kinds() -> dict[str, type[Document]]:
    """Claim documents by their ``type``."""
    union = get_args(Claim)[0]
    documents = [get_args(branch)[0] for branch in get_args(union)]
    return {get_args(d.model_fields["type"].annotation)[0]: d for d in documents}
