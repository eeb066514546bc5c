"""Plain values into documents; every refusal in words that need no library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shardwright.ingest.known_fields import known_fields
from shardwright.ingest.refuse import nearest, shown
from shardwright.schema.base import format_size
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.topology import Faults

M = TypeVar("M", bound=BaseModel)

_PLAIN = {
    "missing": "this field is required",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "numbers are finite",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_LIMITS = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "too_long": "at most {max_length} entries",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
}


def validate(kind: type[M], raw: Any, source: str, at: str = "") -> M:
    """The document of a plain value; ``at`` is its path in the file.

    Raises InvalidInstance listing every refused field.
    """
    document, errors = attempt(kind, raw, at)
    if document is None:
        raise InvalidInstance(source, errors)
    return document


def attempt(kind: type[M], raw: Any, at: str = "") -> tuple[M | None, list[FieldError]]:
    """The document, or None and why not."""
    try:
        # documents are strict: only in JSON does a list stand for a tuple
        return kind.model_validate_json(json.dumps(raw)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        real = [d for d in details if not _spurious(raw, d)]
        return None, _merged([e for d in real for e in _field_errors(kind, raw, at, d)])


def _spurious(raw: Any, detail: ErrorDetails) -> bool:
    """A list counted without its refused entries; those are told themselves."""
    if detail["type"] != "too_short":
        return False
    entries = _walk(raw, detail["loc"])[1]
    return len(entries) >= int(detail["ctx"]["min_length"])


def _merged(errors: Sequence[FieldError]) -> list[FieldError]:
    """One error per field: the branches of a union say what else is allowed."""
    merged: dict[str, FieldError] = {}
    for error in errors:
        before = merged.get(error.path)
        if before is None:
            merged[error.path] = error
        elif error.allowed not in before.allowed:
            allowed = f"{before.allowed}, or {error.allowed}"
            merged[error.path] = FieldError(error.path, before.found, allowed)
    return list(merged.values())


def _field_errors(
    kind: type[BaseModel], raw: Any, at: str, detail: ErrorDetails
) -> list[FieldError]:
    cause = detail.get("ctx", {}).get("error")
    if not isinstance(cause, Faults):
        return [_field_error(kind, raw, at, detail)]
    steps = [*([at] if at else []), *map(str, _walk(raw, detail["loc"])[0])]
    return [
        FieldError(".".join([*steps, fault.path]), fault.found, fault.allowed)
        for fault in cause.errors
    ]


def _field_error(
    kind: type[BaseModel], raw: Any, at: str, detail: ErrorDetails
) -> FieldError:
    steps, value = _walk(raw, detail["loc"])
    path = ".".join(([at] if at else []) + [str(s) for s in steps])
    if detail["type"] == "missing":
        name = str(detail["loc"][-1])
        return FieldError(f"{path}.{name}" if path else name, "nothing",
                          _PLAIN["missing"])  # fmt: skip
    if detail["type"] == "union_tag_invalid":
        # the tag of a union of documents is the field that tells its branches
        choices = detail["ctx"]["expected_tags"].replace("'", "")
        found = shown(detail["ctx"]["tag"])
        return FieldError(f"{path}.type", found, f"one of {choices}")
    allowed = _allowed(kind, steps, value, detail)
    return FieldError(path or "(document)", shown(value), allowed)


def _walk(raw: Any, loc: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """The steps of a location that exist in the value, and what is there.

    pydantic mixes names of union branches into its locations; they are no keys.
    """
    steps: list[int | str] = []
    for step in loc:
        if isinstance(raw, dict) and step in raw:
            raw = raw[str(step)]
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            raw = raw[step]
        else:
            continue
        steps.append(step)
    return steps, raw


def _allowed(
    kind: type[BaseModel], steps: list[int | str], value: Any, detail: ErrorDetails
) -> str:
    error_type, context = detail["type"], detail.get("ctx", {})
    if error_type == "extra_forbidden":
        known = known_fields(kind, steps[:-1])
        hint = nearest(str(steps[-1]), known)
        return f"{hint}fields here are {', '.join(known)}"
    if error_type == "too_short":
        fewest = context["min_length"]
        return "at least one entry" if fewest == 1 else f"{fewest} entries"
    if error_type in ("literal_error", "enum"):
        choices = str(context["expected"])
        return f"one of {choices}" if " or " in choices else choices
    if error_type == "less_than_equal" and isinstance(value, str) and "B" in value:
        return f"at most {format_size(context['le'])}"
    if error_type in _LIMITS:
        return _LIMITS[error_type].format(**context)
    if error_type == "value_error":
        return _own_words(str(context["error"]))
    return _PLAIN.get(error_type, detail["msg"])


def _own_words(message: str) -> str:
    """The schema's own message, up to what it found, which is told beside it; those
    of Python's number parsing are replaced."""
    if message.startswith("could not convert string to float"):
        return "a number or a percentage, such as 0.85 or '85%'"
    if message.startswith("Exceeds the limit"):
        return "a number of fewer digits"
    return message.split("; found ")[0]
