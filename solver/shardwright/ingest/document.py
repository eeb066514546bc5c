"""Bytes to plain values: size, encoding, syntax, and the limits of every value."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from shardwright.ingest.json_text import read_json
from shardwright.ingest.refuse import refuse, shown
from shardwright.ingest.yaml_text import read_yaml
from shardwright.schema.errors import FieldError, InvalidInstance

MAX_BYTES = 4 * 10**6
MAX_TEXT = 10_000
MAX_INTEGER = 2**63 - 1
MAX_VALUES = 500_000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file of at most ``max_bytes``.

    Raises InvalidInstance when it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        refuse(str(path), "(file)", "no such file", "the path of a readable file")
    # ValueError: a path with a NUL character
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        refuse(str(path), "(file)", reason, "the path of a readable file")
    if len(data) > max_bytes:
        refuse(
            str(path),
            "(file)",
            f"more than {max_bytes} bytes",
            f"at most {max_bytes} bytes are read",
        )
    return data


def parse(data: bytes, source: str, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """The mapping of a document: JSON when the source ends in .json, else YAML.

    Raises InvalidInstance.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        refuse(source, f"line {line}", f"byte {data[error.start]:#x}", "UTF-8 text")
    value = _read(text, source)
    if not isinstance(value, dict):
        refuse(source, "(document)", shown(value), "a mapping is needed")
    _check_values(value, source, max_values)
    return value


def _read(text: str, source: str) -> Any:
    if source.endswith(".json"):
        return read_json(text, source)
    return read_yaml(text, source)


def _check_values(document: dict[str, Any], source: str, max_values: int) -> None:
    """Refuse values that no field may have: huge integers, infinities, control
    characters, lone surrogates. pydantic would crash or fall silent on them."""
    stack: list[tuple[str, Any]] = [("", document)]
    errors: list[FieldError] = []
    values = 0
    while stack and len(errors) < 20:
        path, value = stack.pop()
        values += 1
        if values > max_values:
            refuse(source, "(document)", f"more than {max_values} values", "fewer")
        if isinstance(value, dict):
            for key, item in value.items():
                if wrong := _scalar_errors(f"{path}{shown(key)}", key):
                    errors += wrong
                else:
                    stack.append((f"{path}{key}.", item))
        elif isinstance(value, list):
            stack += [(f"{path}{i}.", item) for i, item in enumerate(value)]
        else:
            errors += _scalar_errors(path[:-1], value)
    if errors:
        raise InvalidInstance(source, errors)


def _scalar_errors(path: str, value: Any) -> list[FieldError]:
    allowed = None
    if type(value) is int and abs(value) > MAX_INTEGER:
        allowed = "whole numbers are at most 2^63 - 1"
    elif isinstance(value, float) and not math.isfinite(value):
        return [FieldError(path, "a number that is not finite", "numbers are finite")]
    elif isinstance(value, str):
        allowed = _text_rule(value)
    return [FieldError(path, shown(value), allowed)] if allowed else []


def _text_rule(value: str) -> str | None:
    if len(value) > MAX_TEXT:
        return f"text has at most {MAX_TEXT} characters"
    if _CONTROL.search(value):
        return "text has no control characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "text is valid Unicode"
    return None
