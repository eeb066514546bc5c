"""The journal of a sweep: one line per finished point, so that no work is repeated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from shardwright.ingest.refuse import refuse
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.result import Status
from shardwright.schema.sweep import Row

NAME = "journal.jsonl"


class Journal:
    """Outcomes by the key of their point; a context that holds the file open.

    Entering reads what is there, drops a half-written last line and locks the file:
    a second sweep in the same folder is refused. Raises InvalidInstance.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.known: dict[str, Row] = {}
        self._file: int | None = None

    def __enter__(self) -> Journal:
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._close()
            refuse(
                str(self.path), "(file)", "another sweep that runs", "one per folder"
            )
        except OSError as error:
            self._close()
            reason = error.strerror or str(error)
            refuse(str(self.path), "(file)", reason, "a folder that can be written to")
        except InvalidInstance:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            assert self._file is not None
            os.ftruncate(self._file, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            key, row = self._entry(number, line)
            self.known[key] = row

    def _entry(self, number: int, line: bytes) -> tuple[str, Row]:
        try:
            entry: Any = json.loads(line)
            key, row = entry["key"], entry["outcome"]
            Status(row["status"])
        except (ValueError, KeyError, TypeError):
            allowed = "a point's key and outcome; remove the line to solve it again"
            error = FieldError(f"line {number}", repr(line[:40]), allowed)
            raise InvalidInstance(str(self.path), [error]) from None
        return str(key), row

    def finished(self, key: str) -> Row | None:
        """The outcome of a point that needs no solving; what failed is tried again."""
        row = self.known.get(key)
        return None if row is None or row["status"] == Status.ERROR.value else row

    def add(self, key: str, outcome: Row) -> None:
        """Keep an outcome: one write of one line."""
        assert self._file is not None
        line = json.dumps({"key": key, "outcome": outcome}) + "\n"
        os.write(self._file, line.encode())
        self.known[key] = outcome
