"""Reading routed instances: the suite loads, every fault is refused by its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwright.ingest.routed import load_routed, routed_of, routed_sha256
from shardwright.problem.routed import compile_routed
from shardwright.schema.errors import InvalidInstance

ROUTED = Path(__file__).parents[2] / "instances" / "routed"
FILES = sorted(ROUTED.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_suite_loads_under_its_own_names(path: Path) -> None:
    instance = load_routed(path)
    assert instance.name == path.stem
    assert instance.licence == "Apache-2.0"
    assert not instance.has_latency
    assert len(routed_sha256(instance)) == 64


def document() -> dict[str, Any]:
    return {
        "name": "x",
        "num_layers": 4,
        "throughput_by_layers": {"A": [3.0, 1.5]},
        "nodes": [{"id": 0, "type": "A"}, {"id": 1, "type": "A", "max_layers": 1}],
        "links": [["source", 0, 9.0], [0, 1, 9.0, 2.0], [1, "sink", 9.0]],
    }


def refused(changed: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidInstance) as raised:
        routed_of(json.dumps({**document(), **changed}).encode(), "x.json")
    return [error.path for error in raised.value.errors]


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("nodes.0.type", {"nodes": [{"id": 0, "type": "B"}, {"id": 1, "type": "A"}]}),
        ("nodes.1.id", {"nodes": [{"id": 1, "type": "A"}, {"id": 1, "type": "A"}],
                        "links": []}),
        ("nodes", {"nodes": []}),
        ("links.0.to", {"links": [["source", 5, 1.0]]}),
        ("links.0.from", {"links": [["sink", 0, 1.0]]}),
        ("links.0", {"links": [[0, 0, 1.0]]}),
        ("links.1", {"links": [[0, 1, 1.0], [0, 1, 2.0]]}),
        ("links.0", {"links": [[0, 1]]}),
        ("links.0", {"links": [[0, 1, 0.0]]}),
        ("num_layers", {"num_layers": 0}),
        ("throughput_by_layers.A.0", {"throughput_by_layers": {"A": [-1.0]}}),
        ("stage_ms_by_layers.A", {"stage_ms_by_layers": {"A": [1.0]}}),
        ("stage_ms_by_layers.Z", {"stage_ms_by_layers": {"Z": [1.0]}}),
        ("unknown", {"unknown": 1}),
    ],
)  # fmt: skip
def test_faults_are_refused_by_path(path: str, changed: dict[str, Any]) -> None:
    assert path in refused(changed)


def test_rates_are_cut_and_memory_limits_the_table() -> None:
    text = json.dumps({**document(), "throughput_by_layers": {"A": [3.0000019, 1.5]}})
    problem = compile_routed(routed_of(text.encode(), "x.json"))
    assert [c.rates for c in problem.classes] == [(3_000_001, 1_500_000), (3_000_001,)]
    assert problem.class_of == (0, 1)
