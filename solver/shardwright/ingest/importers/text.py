"""The text of a file with its line numbers, clean of terminal colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from shardwright.ingest.document import read_file
from shardwright.ingest.refuse import refuse, shown

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\x1b[=>]")
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
MAX_LINES = 200_000


@dataclass(frozen=True)
class SourceText:
    """``node`` is the name that the file's name, or whoever gave it, has for it."""

    source: str
    node: str
    text: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """Line number, from 1, and line without what is invisible at its end."""
        for number, line in enumerate(self.text.splitlines(), start=1):
            yield number, line.rstrip()

    def refuse(self, line: int | str, found: str, allowed: str) -> NoReturn:
        """Refuse a line, or a path of the document."""
        at = f"line {line}" if isinstance(line, int) else line
        refuse(self.source, at, found, allowed)


def read_text(path: Path, node: str) -> SourceText:
    """The file as text; colours are taken out, CR LF and a BOM are no matter.

    Raises InvalidInstance.
    """
    data = read_file(path)
    source = str(path)
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        refuse(source, f"line {line}", f"byte {data[error.start]:#x}", "UTF-8 text")
    clean = _ANSI.sub("", text)
    if clean.count("\n") > MAX_LINES:
        refuse(
            source, "(file)", f"{clean.count(chr(10))} lines", f"at most {MAX_LINES}"
        )
    if control := re.search(r"[\x00-\x08\x0e-\x1f]", clean):
        line = clean.count("\n", 0, control.start()) + 1
        refuse(source, f"line {line}", shown(control.group()), "text")
    return SourceText(source, node, clean)
