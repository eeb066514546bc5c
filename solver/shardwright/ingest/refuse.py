"""Words for refused values, shared by every reader of documents."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any, NoReturn

from shardwright.schema.errors import FieldError, InvalidInstance

LONGEST_SHOWN = 80


def shown(value: Any) -> str:
    """A refused value in a few words, as it would be written in JSON."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, list(value)[:6])) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**LONGEST_SHOWN:
        return "a whole number of more than 80 digits"
    text = json.dumps(value, ensure_ascii=not _encodable(value))
    if len(text) > LONGEST_SHOWN:
        return f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"
    return text


def one_of(names: Iterable[str]) -> str:
    """The allowed names in words: ``one of a, b, c``."""
    return f"one of {', '.join(sorted(names))}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean X or Y? `` for a near miss, else an empty string."""
    folded = {candidate.lower(): candidate for candidate in known}
    wanted = name.lower()[:200]
    longer = [candidate for candidate in sorted(folded) if wanted in candidate]
    close = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.6)
    if not wanted or not (longer or close):
        return ""
    best = list(dict.fromkeys([*longer[:3], *close]))[:3]
    return f"did you mean {' or '.join(folded[match] for match in best)}? "


def refuse(source: str, path: str, found: str, allowed: str) -> NoReturn:
    """Raise the refusal of one field; what was found is cut to a readable length."""
    if len(found) > 3 * LONGEST_SHOWN:
        found = f"{found[: 3 * LONGEST_SHOWN]}..."
    raise InvalidInstance(source, [FieldError(path, found, allowed)])


def _encodable(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return value.isprintable()
