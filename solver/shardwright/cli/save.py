"""Files of a result, each complete or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shardwright.schema.errors import FieldError, InvalidInstance

if TYPE_CHECKING:
    from shardwright.schema.result import Result


def save(folder: Path, result: Result, tables: str) -> None:
    """Write result.json, tables.txt and, where there is a plan, plan.json."""
    files = {
        "result.json": result.model_dump_json(by_alias=True, indent=2),
        "tables.txt": tables,
    }
    if result.plan is not None:
        files["plan.json"] = result.plan.model_dump_json(by_alias=True, indent=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _write(folder / name, text)
    except OSError as error:
        reason = error.strerror or str(error)
        allowed = f"a folder that can be written to ({reason})"
        field = FieldError("--save-dir", repr(str(folder)), allowed)
        raise InvalidInstance("command line", [field]) from error


def write_text(path: Path, text: str, option: str) -> None:
    """One file, whole or not at all; ``option`` is who asked for it.

    Raises InvalidInstance where it cannot be written.
    """
    try:
        _write(path, text.removesuffix("\n"))
    except OSError as error:
        reason = error.strerror or str(error)
        allowed = f"a file that can be written ({reason})"
        field = FieldError(option, repr(str(path)), allowed)
        raise InvalidInstance("command line", [field]) from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a rename is atomic, a write is not."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
