"""A cluster file that people read: short lists on one line, a comment per origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+()-]+)*")
_SIZE = re.compile(r"\d+ [KMGT]i?B")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
WIDTH = 100

Comments = Mapping[tuple[str | int, ...], str]
"""Comments by the path of what they are about."""


@dataclass(frozen=True)
class _Told:
    """Comments, and the paths that have one somewhere below them."""

    texts: Comments
    above: set[tuple[str | int, ...]]


def yaml_text(document: Mapping[str, Any], head: list[str], comments: Comments) -> str:
    """YAML 1.2 of mappings, lists, text and numbers, with comments."""
    lines = [folded for line in head for folded in _folded(_clean(line), 0)]
    above = {path[:k] for path in comments for k in range(len(path))}
    lines += _mapping(document, (), 0, _Told(comments, above))
    return "\n".join(lines) + "\n"


def _mapping(
    value: Mapping[str, Any],
    path: tuple[str | int, ...],
    indent: int,
    comments: _Told,
) -> Iterator[str]:
    for key, item in value.items():
        yield from _entry(f"{_scalar(key)}:", item, (*path, key), indent, comments)


def _entry(
    start: str, item: Any, path: tuple[str | int, ...], indent: int, comments: _Told
) -> Iterator[str]:
    room = " " * indent
    comment = comments.texts.get(path, "")
    flow = _flow(item)
    commented = path in comments.above
    fits = len(room) + len(start) + 1 + len(flow) <= WIDTH
    simple = not isinstance(item, dict | list) or _is_short(item)
    if not commented and (not isinstance(item, dict | list) or (fits and simple)):
        yield from _commented(f"{room}{start} {flow}", comment, indent)
    elif isinstance(item, dict):
        yield from _commented(f"{room}{start}", comment, indent)
        yield from _mapping(item, path, indent + 2, comments)
    else:
        yield from _commented(f"{room}{start}", comment, indent)
        yield from _listed(item, path, indent + 2, comments)


def _listed(
    items: list[Any], path: tuple[str | int, ...], indent: int, comments: _Told
) -> Iterator[str]:
    if all(not isinstance(item, dict | list) for item in items):
        yield from _wrapped(items, indent)
        return
    for i, item in enumerate(items):
        here = (*path, i)
        commented = here in comments.above or here in comments.texts
        flow = _flow(item)
        if not commented and indent + 2 + len(flow) <= WIDTH:
            yield f"{' ' * indent}- {flow}"
        elif isinstance(item, dict):
            lines = list(_mapping(item, here, indent + 2, comments))
            yield f"{' ' * indent}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield f"{' ' * indent}-"
            yield from _listed(item, here, indent + 2, comments)


def _wrapped(items: list[Any], indent: int) -> Iterator[str]:
    """A long flow list over several lines."""
    line = " " * indent + "["
    for i, item in enumerate(items):
        word = _scalar(item) + ("," if i + 1 < len(items) else "]")
        if len(line) + 1 + len(word) > WIDTH:
            yield line.rstrip()
            line = " " * (indent + 1)
        line += word + " "
    yield line.rstrip()


def _commented(line: str, comment: str, indent: int) -> list[str]:
    if not comment:
        return [line]
    whole = f"{line}  # {_clean(comment)}"
    if len(whole) <= WIDTH:
        return [whole]
    return [*_folded(_clean(comment), indent), line]


def _folded(text: str, indent: int) -> list[str]:
    inner = len(text) - len(text.lstrip())
    lines, start = [], " " * indent + "#" + " " * inner
    line = start
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH and line != start:
            lines.append(line)
            line = start
        line += f" {word}"
    return [*lines, line]


def _is_short(item: Any) -> bool:
    """Whether a value is read best on one line: no mapping that holds mappings."""
    if isinstance(item, dict):
        return not any(isinstance(v, dict) for v in item.values()) and len(item) <= 8
    return not any(isinstance(v, dict) for v in item)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(v) for v in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not isinstance(value, str):
        return json.dumps(value)
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain or _SIZE.fullmatch(value) else json.dumps(value)


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
