"""Damaged files: an Instance or InvalidInstance, nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwright.ingest.load import load_bytes
from shardwright.schema import Instance
from shardwright.schema.errors import InvalidInstance

HERE = Path(__file__).parent


def quick(examples: int) -> settings:
    """The same damage in every run, without a clock."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


TOKENS = [
    b"\n", b" ", b"  ", b"\t", b":", b": ", b"-", b"- ", b"{", b"}", b"[", b"]", b",",
    b'"', b"'", b"#", b"&a ", b"*a", b"!!str ", b"|", b">", b"%", b"---\n", b"...\n",
    b"? ", b"<<: ", b"null", b"true", b".nan", b".inf", b"1e999", b"-1", b"0",
    b"9" * 30, b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"\\", b"\\ud800", b"@", b"`", b"~", b"\r", b"0x", b"1_0", b"%YAML 1.1\n",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat", "cut"]),
        st.integers(0, 10**6),
        st.integers(1, 40),
        st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=4)),
    ),
    min_size=1,
    max_size=6,
)


def damaged(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, length, token in edits:
        at = place % (len(data) + 1)
        end = at + length
        match kind:
            case "insert":
                data = data[:at] + token + data[at:]
            case "delete":
                data = data[:at] + data[end:]
            case "replace":
                data = data[:at] + token + data[end:]
            case "repeat":
                data = data[:end] + data[at:end] * 3 + data[end:]
            case "cut":
                data = data[:at]
    return data


def outcome(data: bytes, source: str) -> str:
    try:
        instance = load_bytes(data, source, HERE)
    except InvalidInstance as refused:
        assert refused.errors
        assert all(e.path and e.found and e.allowed for e in refused.errors)
        str(refused).encode()
        return "refused"
    assert isinstance(instance, Instance)
    return "loaded"


@pytest.fixture(scope="module")
def seen() -> dict[str, int]:
    return {"loaded": 0, "refused": 0}


@quick(400)
@given(edits=EDITS)
def test_damaged_yaml(edits, instance_text, seen) -> None:
    seen[outcome(damaged(instance_text.encode(), edits), "i.yaml")] += 1


@quick(400)
@given(edits=EDITS)
def test_damaged_json(edits, document, seen) -> None:
    data = json.dumps(document, indent=1).encode()
    seen[outcome(damaged(data, edits), "i.json")] += 1


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from(["85%", "1e400%", "80 GB", "-1 GB", "mean", "./", "/", "..",
                     "x.json", "a\x00.json", "9" * 400 + "%", 10**400, -(2**63),
                     2**63 - 1]),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(st.text(max_size=3), SCALARS, max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(p for key, item in inner for p in places(item, (*path, key)))]


@quick(300)
@given(place=st.integers(0, 10**6), value=VALUES)
def test_any_value_at_any_field(place, value, document, seen) -> None:
    raw = copy.deepcopy(document)
    paths = places(raw)[1:]
    *above, last = paths[place % len(paths)]
    inside = raw
    for step in above:
        inside = inside[step]
    inside[last] = value
    seen[outcome(json.dumps(raw).encode(), "i.json")] += 1


def test_both_outcomes_were_seen(seen) -> None:
    """Otherwise the damage is too light or too heavy to prove anything."""
    assert seen["loaded"] > 20
    assert seen["refused"] > 400
