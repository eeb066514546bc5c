"""Operator files: those of the catalogue, and a user's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from shardwright.ingest.catalogue import gpu, root
from shardwright.ingest.document import parse, read_file
from shardwright.ingest.validate import validate
from shardwright.schema.operators import OperatorFile

_FOLDER = ("calibration", "operators")


def load_operators(path: str | Path) -> OperatorFile:
    """The operator file of a path. Raises InvalidInstance."""
    return validate(OperatorFile, parse(read_file(Path(path)), str(path)), str(path))


@cache
def measured_operators() -> tuple[tuple[OperatorFile, str], ...]:
    """Every operator file of the catalogue, with its GPU type's class."""
    folder = root().joinpath(*_FOLDER)
    files = [load_operators(path) for path in sorted(folder.glob("*.yaml"))]
    return tuple((file, gpu(file.gpu).calibration.name) for file in files)
