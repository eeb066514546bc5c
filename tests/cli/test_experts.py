"""``experts``: answers, refusals, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answered

Call = Callable[..., Answered]

SKEWED = [[40, 20, 20, 10, 10, 10, 5, 5], [8, 7, 6, 5, 4, 3, 2, 1]]
LEVEL = [[10] * 8, [10] * 8]


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, object], str]:
    """Write a load table."""

    def write(name: str, rows: object) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        return str(path)

    return write


Table = Callable[[str, object], str]


def test_the_answer_comes_first(call: Call, table: Table) -> None:
    done = call("experts", table("level", LEVEL), "--gpus", "4", "--slots", "8")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("OPTIMAL  balance 1.0000 in the mean, 1.0000 in the")
    assert "4 GPUs on 1 node, 8 slots (2 per GPU, 0 for second copies)" in done.stdout
    assert lines[-1].split() == [
        *("1", "20.00", "20.00", "20.00", "1.0000", "0.000%", "OPTIMAL")
    ]
    assert max(map(len, lines)) <= 100


def test_json_has_the_map_and_every_layer(call: Call, table: Table) -> None:
    loads = table("skewed", SKEWED)
    done = call("experts", loads, "--gpus", "4", "--slots", "12", "--json")
    document = json.loads(done.stdout)
    assert document["slots"] == 12
    for row in document["physical_to_logical_map"]:
        assert sorted(set(row)) == list(range(8))
        gpus = [row[i : i + 3] for i in range(0, 12, 3)]
        assert all(len(set(gpu)) == 3 for gpu in gpus)
    for layer, row in zip(document["layers"], SKEWED, strict=True):
        assert layer["mean"] == sum(row) / 4
        assert layer["mean"] <= layer["bound"] <= layer["max"]
    assert document["moves"] is None


def test_what_is_not_proven_within_the_gap_leaves_10(call: Call, table: Table) -> None:
    # two tables that want different maps: no bound tells how good one map can be
    loads = table("a", [[9, 1, 1, 1]]), table("b", [[1, 1, 1, 9]])
    asked = ("experts", *loads, "--gpus", "2", "--slots", "4", "--robust", "mean")
    done = call(*asked)
    document = json.loads(call(*asked, "--json").stdout)
    assert (done.code == 0) == document["within_gap"]
    assert "a, b: 4 experts" in done.stdout
    loose = call(*asked, "--gap", "99%")
    assert loose.code == 0


def test_scenarios_after_the_option_are_tables_too(call: Call, table: Table) -> None:
    a, b, c = (table(name, SKEWED) for name in "abc")
    done = call("experts", a, "--gpus", "2", "--slots", "8", "--scenarios", b, c)
    assert {line.split()[0] for line in done.stdout.splitlines() if line} >= {*"abc"}


def test_moves_are_counted_and_limited(
    call: Call, table: Table, tmp_path: Path
) -> None:
    saved = tmp_path / "map.json"
    sizes = ("--gpus", "4", "--slots", "12")
    call("experts", table("level", LEVEL), *sizes, "--save-map", str(saved))
    assert list(json.loads(saved.read_text())) == ["physical_to_logical_map"]
    again = ("experts", table("skewed", SKEWED), *sizes, "--current", str(saved))
    document = json.loads(call(*again, "--max-moves", "2", "--json").stdout)
    assert max(document["moves"]) <= 2
    assert "moves" in call(*again, "--max-moves", "2").stdout


def test_static_dispatch_and_copies_are_passed_on(call: Call, table: Table) -> None:
    loads = table("skewed", SKEWED)
    sizes = ("--gpus", "4", "--nodes", "2", "--slots", "16")
    for more in (
        ("--split", "sglang_static", "--sglang-rule", "older"),
        ("--split", "lp"),
        ("--groups", "2"),
        ("--allow-copies",),
    ):
        done = call("experts", loads, *sizes, *more, "--time-limit", "5", "--json")
        assert done.code in (0, 10), done.stderr
        split = more[1] if more[0] == "--split" else "even"
        assert json.loads(done.stdout)["split"] == split


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "3", "--slots", "8"), "slots: found 8; allowed: multiples of 3"),
        (("--gpus", "4", "--slots", "4"), "slots: found 4; allowed: 8 to 32"),
        (("--gpus", "4", "--slots", "8", "--max-moves", "1"), "max_moves"),
        (("--gpus", "4", "--slots", "8", "--gap", "nan"), "--gap"),
        (("--gpus", "4", "--slots", "8", "--current", "nope.json"), "nope.json"),
    ],
)
def test_refusals_name_what_is_wrong(
    call: Call, table: Table, arguments: tuple[str, ...], words: str
) -> None:
    done = call("experts", table("skewed", SKEWED), *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert words in done.stderr


def test_tables_that_cannot_be_read_are_bad_input(call: Call, table: Table) -> None:
    sizes = ("--gpus", "4", "--slots", "8")
    ragged = call("experts", table("ragged", [[1, 2], [3]]), *sizes)
    assert (ragged.code, "ragged.json" in ragged.stderr) == (2, True)
    assert call("experts", "missing.csv", *sizes).code == 2
    both = (table("a", SKEWED), table("b", [[1, 2]]))
    assert "scenarios" in call("experts", *both, *sizes).stderr
