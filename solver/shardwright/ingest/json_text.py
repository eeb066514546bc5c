"""Strict JSON: no duplicate keys, no NaN, bounded nesting and size."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from shardwright.ingest.refuse import refuse, shown
from shardwright.ingest.yaml_text import MAX_DEPTH, depth_of


class _DuplicateKey(Exception):
    """A key stands twice in one object."""


def read_json(text: str, source: str) -> Any:
    """The value of a JSON document. Raises InvalidInstance with the line as path."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=lambda name: _refuse_constant(text, source, name),
        )
    except json.JSONDecodeError as error:
        refuse(
            source,
            f"line {error.lineno}",
            f"broken JSON: {error.msg} (column {error.colno})",
            "valid JSON",
        )
    except _DuplicateKey as error:
        key = str(error)
        refuse(source, _line_of_second(text, key), f"the key {shown(key)} twice",
               "keys are unique")  # fmt: skip
    except RecursionError:
        _refuse_depth(source)
    except ValueError:
        # Python refuses to convert numbers of more than 4300 digits
        refuse(source, "(text)", "a number of thousands of digits", "a shorter number")
    if depth_of(value) > MAX_DEPTH:
        _refuse_depth(source)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return mapping


def _line_of_second(text: str, key: str) -> str:
    """Line of the second place where the key is written, which need not be the
    duplicate when other objects have the key too: then all lines are given."""
    pattern = re.escape(json.dumps(key)) + r"\s*:"
    lines = [text.count("\n", 0, m.start()) + 1 for m in re.finditer(pattern, text)]
    if len(lines) == 2:
        return f"line {lines[1]}"
    return f"lines {', '.join(map(str, lines[:10]))}" if lines else "(text)"


def _refuse_constant(text: str, source: str, name: str) -> NoReturn:
    line = text.count("\n", 0, max(text.find(name), 0)) + 1
    refuse(source, f"line {line}", name, "numbers are finite")


def _refuse_depth(source: str) -> NoReturn:
    refuse(
        source,
        "(text)",
        f"more than {MAX_DEPTH} levels of nesting",
        f"at most {MAX_DEPTH} levels are allowed",
    )
