"""Tables with their bars, as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tabulate import tabulate

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Bar:
    """A claim that a table was made for, what was measured, and if it holds."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Table:
    """Rows under headers, with notes and bars."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    bars: Sequence[Bar] = field(default=())
    notes: Sequence[str] = field(default=())

    def text(self, style: str) -> str:
        """The table in a tabulate style, bars below."""
        body = tabulate(self.rows, self.headers, tablefmt=style, floatfmt=".4f")
        bars = [
            f"- {'holds' if bar.holds else 'FALLS SHORT'}: {bar.claim} ({bar.measured})"
            for bar in self.bars
        ]
        lines = [f"## {self.title}", "", body, "", *bars]
        return "\n".join([*lines, *self.notes, ""])


def write(tables: Sequence[Table], folder: Path, how: str) -> None:
    """experts.md and experts.json in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    head = (
        f"# Expert placement\n\nMade by `{how}`; loads in benchmarks/experts/data.\n\n"
    )
    text = head + "\n".join(table.text("github") for table in tables)
    (folder / "experts.md").write_text(text, encoding="utf-8")
    document = {"command": how, "tables": [asdict(table) for table in tables]}
    (folder / "experts.json").write_text(
        json.dumps(document, indent=1, default=float) + "\n", encoding="utf-8"
    )
