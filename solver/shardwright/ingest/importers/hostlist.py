"""Slurm's host lists: ``dgx[01-04,7],login`` is five nodes."""

from __future__ import annotations

import re

MAX_NAMES = 100_000
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def expand(text: str) -> list[str]:
    """The names of a host list, in its order.

    Raises ValueError saying what is wrong with it.
    """
    names: list[str] = []
    for part in _split(text):
        names += _expanded(part, MAX_NAMES - len(names))
    if not names:
        raise ValueError("no name")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name!r} twice")
        seen.add(name)
    return names


def _split(text: str) -> list[str]:
    """At the commas outside brackets."""
    return [part for part in re.split(r",(?![^\[]*\])", text.strip()) if part]


def _expanded(part: str, room: int) -> list[str]:
    pieces = re.findall(r"\[[^\]]*\]|[^\[\]]+|[\[\]]", part)
    names = [""]
    for piece in pieces:
        if piece in "[]":
            raise ValueError(f"{part!r} with a bracket that is not closed")
        ends = _numbers(piece[1:-1], part, room) if piece[0] == "[" else [piece]
        if len(names) * len(ends) > room:
            raise ValueError(f"more than {MAX_NAMES} names")
        names = [name + end for name in names for end in ends]
    return names


def _numbers(text: str, part: str, room: int) -> list[str]:
    numbers: list[str] = []
    for span in text.split(","):
        match = _RANGE.fullmatch(span.strip())
        if match is None:
            raise ValueError(f"{part!r}, where {span!r} is no number and no range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part!r}, where {span!r} runs backwards")
        if last - first >= room - len(numbers):
            raise ValueError(f"more than {MAX_NAMES} names")
        width = len(match[1])
        numbers += [f"{n:0{width}d}" for n in range(first, last + 1)]
    return numbers
