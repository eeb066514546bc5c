"""Readers: every accepted layout, and refusals that name the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwright.experts import read_loads, read_map
from shardwright.experts.loads import parse_loads

TABLE = [[1, 2, 3], [4, 5, 6]]


def put(folder: Path, text: str, name: str = "x.json") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_native_layout(tmp_path: Path) -> None:
    document = {"name": "t", "num_layers": 2, "load": TABLE, "configs": [{"id": "a"}]}
    table = read_loads(put(tmp_path, json.dumps(document)))
    assert table.load.tolist() == TABLE
    assert (table.name, table.configs[0]["id"]) == ("t", "a")


def test_plain_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(TABLE))
    paths = [
        put(tmp_path, json.dumps(TABLE)),
        put(tmp_path, "e0,e1,e2\n1,2,3\n4,5,6\n", "a.csv"),
        put(tmp_path, "1,2,3\n4,5,6\n", "b.csv"),
        tmp_path / "a.npy",
    ]
    for path in paths:
        assert read_loads(path).load.tolist() == TABLE


def test_histories_and_recorder_dumps(tmp_path: Path) -> None:
    history = {"load_history": [{"logical_expert_load": TABLE}] * 2}
    assert parse_loads(history).load.tolist() == [[2, 4, 6], [8, 10, 12]]
    steps = {"logical_count": [TABLE, TABLE, TABLE], "rank": 0}
    assert parse_loads(steps).load[1].tolist() == [12, 15, 18]
    physical = {
        "expert_load_window": [[[1, 2, 3]], [[1, 1, 1]]],
        "physical_to_logical_map": [[1, 0, 1]],
    }
    assert parse_loads(physical).load.tolist() == [[3, 6]]
    np.savez(tmp_path / "d.npz", logical_count=np.array(TABLE))
    assert read_loads(tmp_path / "d.npz").load.tolist() == TABLE


def test_maps(tmp_path: Path) -> None:
    path = put(tmp_path, json.dumps({"physical_to_logical_map": [[0, 1, 1]]}))
    assert read_map(path).tolist() == [[0, 1, 1]]
    with pytest.raises(ValueError, match=r"map\[0\]\[1\]: found 0.5"):
        read_map(put(tmp_path, "[[0, 0.5]]"))
    with pytest.raises(ValueError, match="allowed physical_to_logical_map"):
        read_map(put(tmp_path, "{}"))


BAD: list[tuple[Any, str]] = [
    ({"load": [[1, -2]]}, r"load\[0\]\[1\]: found -2"),
    ({"load": [[1, True]]}, r"load\[0\]\[1\]: found True"),
    ({"load": [[1, "2"]]}, r"load\[0\]\[1\]: found '2'"),
    ({"load": [[1, 2], [3]]}, "load: found rows of lengths|lengths"),
    ({"load": []}, "load: found shape"),
    ({"load": [1, 2]}, "load: found shape"),
    ({"load": [[[[1]]]]}, "four deep"),
    ({"load": [[1, 2]], "num_experts": 3}, "num_experts: found 3, allowed 2"),
    ({"load": [[1, 2]], "configs": [1]}, "configs: found"),
    ({"load": [[1, 2]], "name": 1}, "name: found 1"),
    ({"loads": [[1]]}, r"\$: found keys \['loads'\]"),
    ({"load_history": []}, "load_history: found no steps"),
    ({"load_history": [{}]}, r"load_history\[0\]: found no logical_expert_load"),
    (
        {
            "load_history": [
                {"logical_expert_load": [[1]]},
                {"logical_expert_load": [[1, 2]]},
            ]
        },
        r"load_history\[1\]: found shape",
    ),
    ({"expert_load_pass": [[1, 2]]}, "physical_to_logical_map: found nothing"),
    (
        {"expert_load_pass": [[1, 2]], "physical_to_logical_map": [[0, 9]]},
        "found expert 9",
    ),
    ("text", r"\$: found 'text'"),
]


@pytest.mark.parametrize(("document", "message"), BAD, ids=[m for _, m in BAD])
def test_refusals(document: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_loads(put(tmp_path, json.dumps(document)))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ('{"load": [[1]], "load": [[2]]}', "x.json", "load: found twice"),
        ("[[NaN]]", "x.json", "found NaN"),
        ("[[1, Infinity]]", "x.json", "found Infinity"),
        ("[[1e999]]", "x.json", "found inf"),
        ("{", "x.json", "found no JSON"),
        ("[" * 100_000, "x.json", "found no JSON"),
        ("1,2\n3,x\n", "x.csv", r"csv\[1\]"),
        ("1,nan\n", "x.csv", r"csv\[0\]\[1\]: found nan"),
        ("", "x.npy", "found no plain .npy"),
        ("", "x.npz", "found no"),
        ("", "x.txt", "found suffix '.txt'"),
    ],
)
def test_broken_files(text: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_loads(put(tmp_path, text, name))


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no plain"):
        read_loads(tmp_path / "p.npy")
    np.savez(tmp_path / "p.npz", load=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickled|allow_pickle"):
        read_loads(tmp_path / "p.npz")
