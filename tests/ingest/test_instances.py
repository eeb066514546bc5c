"""The instances of the repository: every file loads, and says what it claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwright.ingest import load, parameter_count
from shardwright.problem import mixtures

INSTANCES = Path(__file__).parents[2] / "instances"
NO_INSTANCES = ("claims", "clusters")
FILES = sorted(
    p for p in INSTANCES.rglob("*.yaml") if p.parent.name not in NO_INSTANCES
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_instance_loads_under_its_own_name(path: Path) -> None:
    assert load(path).name == path.stem


@pytest.mark.parametrize(
    ("name", "top_k", "parameters"),
    [
        ("moe-10b-512gpu", 1, 9_996_666_880),
        ("moe-10b-512gpu-rate", 1, 9_996_666_880),
        ("moe-10b-512gpu-top2", 2, 9_996_666_880),
        ("moe-30b-16gpu", 1, 30_013_492_224),
        ("moe-30b-16gpu-top2", 2, 30_013_492_224),
    ],
)
def test_seeds_of_mixtures_have_their_stated_size(
    name: str, top_k: int, parameters: int
) -> None:
    instance = load(INSTANCES / "seeds" / f"{name}.yaml")
    assert parameter_count(instance.model) == parameters
    assert [e.top_k for e in mixtures(instance.model)] == [top_k]
    (gpu,) = instance.cluster.gpu_types.values()
    assert gpu.memory_bytes == 64 * 10**9
    assert gpu.dense_tflops["fp16"] * gpu.calibration.matmul_efficiency["fp16"] == 240
