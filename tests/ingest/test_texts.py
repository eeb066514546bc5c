"""YAML and JSON texts: what is read, and what is refused with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shardwright.ingest.document import MAX_BYTES, parse, read_file
from shardwright.ingest.json_text import read_json
from shardwright.ingest.yaml_text import MAX_NODES, depth_of, read_yaml
from shardwright.schema.errors import InvalidInstance


def test_plain_scalars_follow_the_core_schema() -> None:
    text = """
    text: [yes, on, 2020-01-01, 1_000, 0b1, "12", '~', 1e, +, -, .]
    whole: [1, -2, +3, 010, 0x1F, 0o17]
    real: [1.5, -.5, 1., 1e3, 2.5E-1]
    rest: [true, False, null, ~, ]
    2: two
    """
    assert read_yaml(text, "f.yaml") == {
        "text": ["yes", "on", "2020-01-01", "1_000", "0b1", "12", "~", "1e", "+",
                 "-", "."],
        "whole": [1, -2, 3, 10, 31, 15],
        "real": [1.5, -0.5, 1.0, 1000.0, 0.25],
        "rest": [True, False, None, None],
        "2": "two",
    }  # fmt: skip


def test_aliases_are_written_out() -> None:
    assert read_yaml("a: &x [1, &y 2]\nb: *x\nc: *y\n&k d: *y\ne: *k\n", "f") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": 2,
        "d": 2,
        "e": "d",
    }


BROKEN_YAML = [
    ("a: 1\nb: 2\na: 3\n", "line 3", '"a" twice'),
    ("a: {b: 1, b: 2}", "line 1", '"b" twice'),
    ("2: a\n'2': b\n", "line 2", '"2" twice'),
    ("a: .nan\n", "line 1", ".nan"),
    ("a: 1\nb: -.inf\n", "line 2", "-.inf"),
    ("null: 1\n", "line 1", "the key null"),
    ("true: 1\n", "line 1", "the key true"),
    ("1.5: 1\n", "line 1", "the key 1.5"),
    ("? [a]\n: 1\n", "line 1", "a key that is not a scalar"),
    ("a: &k b\n*k : 1\n", "line 2", "the alias *k"),
    ("<<: {a: 1}\n", "line 1", "<<"),
    ("a: !!python/object:os.system x\n", "line 1", "the tag"),
    ("a: !!str 2\n", "line 1", "the tag"),
    ("a: 1\n---\nb: 2\n", "line 2", "a second document"),
    ("%YAML 1.1\n---\na: 1\n", "line 2", "%YAML 1.1"),
    ("a: *nowhere\n", "line 1", "the alias *nowhere"),
    ("a: &a [*a]\n", "line 1", "the alias *a"),
    ("a:\n\t- b\n", "line 2", "broken YAML"),
    ("a: [1, 2\nb: 3\n", "line 2", "broken YAML"),
    ("a: 'open\n", "line 2", "broken YAML"),
    ("a: \x00\n", "(text)", "broken YAML"),
    ("", "line 1", "an empty document"),
    ("# nothing\n", "line 1", "an empty document"),
    ("a: " + "[" * 40 + "]" * 40, "line 1", "levels of nesting"),
    ("a: " + "9" * 500, "line 1", "a number of 500"),
]


@pytest.mark.parametrize(("text", "path", "found"), BROKEN_YAML)
def test_broken_yaml_is_refused_with_its_line(text, path, found) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read_yaml(text, "f.yaml")
    [error] = caught.value.errors
    assert error.path == path
    assert found in error.found
    assert error.allowed


def test_alias_bombs_are_counted_as_written_out() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        row = ", ".join([f"*a{i - 1}"] * 10)
        levels.append(f"a{i}: &a{i} [{row}]")
    with pytest.raises(InvalidInstance, match=f"more than {MAX_NODES} values"):
        read_yaml("\n".join(levels), "f.yaml")


def test_aliases_deepen_the_nesting() -> None:
    levels = ["a0: &a0 [x]"]
    levels += [f"a{i}: &a{i} [[[*a{i - 1}]]]" for i in range(1, 12)]
    with pytest.raises(InvalidInstance, match="levels of nesting"):
        read_yaml("\n".join(levels), "f.yaml")


SLOW = {
    "brackets": "[" * 100_000,
    "braces": "{" * 100_000,
    "keys": "? " * 100_000,
    "anchors": "&a " * 100_000,
    "lines": "\n" * 4_000_000,
    "words": "k: " + "a " * 450_000,
    "tags": "!" * 100_000,
    "items": "a:\n" + " - 1\n" * 190_000,
}


@pytest.mark.parametrize("kind", SLOW)
def test_no_text_takes_long(kind: str) -> None:
    before = time.process_time()
    try:
        read_yaml(SLOW[kind], "f.yaml")
    except InvalidInstance as refused:
        assert len(str(refused)) < 1000
    # 0.2 to 1.5 s on the machines it was written on; quadratic texts took minutes
    assert time.process_time() - before < 8


BROKEN_JSON = [
    ('{"a": 1,\n "a": 2}', "line 2", '"a" twice'),
    ('{"a": {"b": 1},\n "c": {"b": 1,\n "b": 2}}', "lines 1, 2, 3", '"b" twice'),
    ('{"a":\n NaN}', "line 2", "NaN"),
    ('{"a": -Infinity}', "line 1", "-Infinity"),
    ('{"a": 1,}', "line 1", "broken JSON"),
    ("{'a': 1}", "line 1", "broken JSON"),
    ("", "line 1", "broken JSON"),
    ('{"a": ' + "9" * 5000 + "}", "(text)", "thousands of digits"),
    ("[" * 100_000, "(text)", "levels of nesting"),
    ("[" * 40 + "]" * 40, "(text)", "levels of nesting"),
]


@pytest.mark.parametrize(("text", "path", "found"), BROKEN_JSON)
def test_broken_json_is_refused_with_its_line(text, path, found) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read_json(text, "f.json")
    [error] = caught.value.errors
    assert error.path == path
    assert found in error.found


def test_depth() -> None:
    assert depth_of(1) == 0
    assert depth_of([]) == 1
    assert depth_of({"a": [1, {"b": 2}]}) == 3


def test_documents_are_mappings_of_sane_values() -> None:
    def errors(data: bytes) -> dict[str, str]:
        with pytest.raises(InvalidInstance) as caught:
            parse(data, "f.json")
        return {e.path: e.found for e in caught.value.errors}

    assert errors(b"[1]") == {"(document)": "a list of 1"}
    assert errors(b'{"a": "\xff"}') == {"line 1": "byte 0xff"}
    assert errors(b'{"a": [0, 1e999]}') == {"a.1": "a number that is not finite"}
    assert errors(b'{"a": {"b": 9223372036854775808}}') == {
        "a.b": "9223372036854775808"
    }
    assert errors(b'{"a": "\\ud800"}') == {"a": '"\\ud800"'}
    assert errors(b'{"a": "x\\u0007"}') == {"a": '"x\\u0007"'}
    assert list(errors(b'{"a\\u0000": 1}')) == ['"a\\u0000"']
    assert list(errors(b'{"a": "' + b"x" * 10_001 + b'"}')) == ["a"]
    assert "values" in errors(b'{"a": [' + b"1," * 500_000 + b"1]}")["(document)"]
    assert parse(b'\xef\xbb\xbf{"a": "\\n\\u00e9"}', "f.json") == {"a": "\n\u00e9"}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (MAX_BYTES + 1))
    for path, found in (
        (tmp_path / "nowhere.yaml", "no such file"),
        (tmp_path, "directory"),
        (Path("a\x00b"), "null"),
        (Path("x" * 5000), "name too long"),
        (large, f"more than {MAX_BYTES} bytes"),
    ):
        with pytest.raises(InvalidInstance) as caught:
            read_file(path)
        [error] = caught.value.errors
        assert error.path == "(file)"
        assert found in error.found.lower()
