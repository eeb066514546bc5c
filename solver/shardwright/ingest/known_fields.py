"""Names of the fields that a document may have at a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def known_fields(kind: type[BaseModel], steps: Sequence[int | str]) -> list[str]:
    """Fields, as people write them, of every document allowed at ``steps``."""
    kinds: list[type[BaseModel]] = [kind]
    for step in steps:
        kinds = [inner for outer in kinds for inner in _inside(outer, step)]
    return [written(outer, name) for outer in kinds for name in outer.model_fields]


def written(kind: type[BaseModel], name: str) -> str:
    """The name of a field in a file: its alias, if it has one."""
    return kind.model_fields[name].alias or name


def _inside(kind: type[BaseModel], step: int | str) -> list[type[BaseModel]]:
    for name, field in kind.model_fields.items():
        if step in (name, field.alias):
            return list(_documents(field.annotation))
    # an index or a free key inside a list or mapping of documents
    return [kind]


def _documents(annotation: Any) -> Iterator[type[BaseModel]]:
    """Document classes inside lists, mappings and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _documents(argument)
