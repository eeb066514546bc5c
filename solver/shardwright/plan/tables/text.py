"""Cells and grids: how figures are written in a terminal, 100 columns at most."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import zip_longest
from math import floor

from tabulate import tabulate

WIDTH = 100

Cell = str
Real = int | float | Fraction


def grid(headers: Sequence[str], rows: Sequence[Sequence[Cell]], align: str) -> str:
    """A table; ``align`` has one letter per column: l or r.

    Headers of several lines stand on one base line, cells of several hang from one.
    Headers are passed as rows because tabulate widens columns with a header by two.
    """
    heads = [header.split("\n") for header in headers]
    depth = max(map(len, heads))
    padded = [[""] * (depth - len(lines)) + lines for lines in heads]
    above = [list(line) for line in zip(*padded, strict=True)]
    below = [line for row in rows for line in _lines(row)]
    columns = zip(*above, *below, strict=True)
    rule = ["-" * max(map(len, column)) for column in columns]
    words = {"l": "left", "r": "right"}
    text = tabulate(
        [*above, rule, *below],
        tablefmt="plain",
        disable_numparse=True,
        colalign=[words[a] for a in align],
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _lines(row: Sequence[Cell]) -> list[list[Cell]]:
    cells = [str(cell).split("\n") for cell in row]
    return [list(line) for line in zip_longest(*cells, fillvalue="")]


def fitted(headers: Sequence[str], rows: Sequence[Sequence[Cell]], align: str) -> str:
    """A table whose first column, a name, is cut as far as the width needs."""

    def matrix(width: int) -> str:
        cut = [[short(name, width), *cells] for name, *cells in rows]
        return grid(headers, cut, align)

    text = matrix(_NAME_WIDTH)
    over = max(map(len, text.splitlines())) - WIDTH
    return text if over <= 0 else matrix(max(6, _NAME_WIDTH - over))


_NAME_WIDTH = 24


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns without rules."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(wrapped(f"{name:<{width}}  ", value) for name, value in rows)


def titled(title: str, *blocks: str) -> str:
    """A title and what stands under it; empty blocks are left out."""
    return "\n".join([title, "", "\n\n".join(b for b in blocks if b)])


def wrapped(first: str, text: str, width: int = WIDTH) -> str:
    """Text folded at spaces; further lines are indented by the length of ``first``."""
    lines, line = [], first
    for word in text.split(" "):
        candidate = line + word if line.endswith(" ") or not line else f"{line} {word}"
        if len(candidate) > width and line.strip():
            lines.append(line.rstrip())
            candidate = " " * len(first) + word
        line = candidate
    return "\n".join([*lines, line.rstrip()])


def short(name: str, width: int) -> str:
    """A name cut in its middle so that it fits."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def number(value: Real, digits: int = 0) -> str:
    """With thousands separators."""
    return f"{float(value):,.{digits}f}"


def cut(value: Real, digits: int) -> str:
    """Rounded down: a rate of 7.9996 must not read as the 8.000 that was asked."""
    scale = 10**digits
    # the small part undoes the binary error of an exact decimal such as 8.347
    return number(floor(float(value) * scale + 1e-6) / scale, digits)


def figures(value: Real) -> str:
    """About four figures: 0.1234, 12.34, 1,234."""
    size = abs(float(value))
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 4
    return "0" if size == 0 else number(value, digits)


def gb(size_bytes: Real, digits: int = 2) -> str:
    """Bytes in GB (1e9)."""
    return number(float(size_bytes) / 1e9, digits)


def mb(size_bytes: Real) -> str:
    """Bytes in MB (1e6)."""
    return figures(float(size_bytes) / 1e6)


def ms(time_ns: Real, digits: int = 2) -> str:
    """Nanoseconds in ms."""
    return number(float(time_ns) / 1e6, digits)


def us(time_ns: Real) -> str:
    """Nanoseconds in microseconds."""
    return number(float(time_ns) / 1e3, 1)


def percent(share: Real, digits: int = 1) -> str:
    """A share of one in percent."""
    return f"{float(share) * 100:.{digits}f}%"


def signed_percent(share: Real, digits: int = 1) -> str:
    """A relative difference in percent, with its sign."""
    return f"{float(share) * 100:+.{digits}f}%"


def amount(count: int, noun: str) -> str:
    """1 GPU, 2 GPUs."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
