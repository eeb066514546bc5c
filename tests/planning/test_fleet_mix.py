"""Cheapest fleets: known optima, brute force, supplies, and tables from solve()."""

from __future__ import annotations

import itertools
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from benchmarks.melange.__main__ import INSTANCES, known
from tests.planning.small import CHAT

from shardwright.planning.fleet_mix import mix, mix_text
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.mix import MixFile


@pytest.mark.parametrize("name", sorted(known()))
def test_known_optima(name: str) -> None:
    found = mix(INSTANCES / f"{name}.json")
    assert found.status.value == "OPTIMAL"
    assert found.cost_usd_per_hour == pytest.approx(known()[name])
    assert found.bound_usd_per_hour == found.cost_usd_per_hour


def brute(file: MixFile) -> Fraction | None:
    """Least cost over every assignment of slices, in exact numbers."""

    def exact(value: float) -> Fraction:
        return Fraction(str(value))

    kinds = [*file.gpu_info.values()]
    shares = [exact(s) for row in file.workload_distribution for s in row]
    rates = [s * exact(file.total_request_rate) / file.slice_factor for s in shares]
    slices = [b for b in range(len(shares)) for _ in range(file.slice_factor)]
    best: Fraction | None = None
    for chosen in itertools.product(range(len(kinds)), repeat=len(slices)):
        load = [Fraction(0)] * len(kinds)
        for b, j in zip(slices, chosen, strict=True):
            tput = exact([t for row in kinds[j].tputs for t in row][b])
            if not tput:
                break
            load[j] += rates[b] / tput
        else:
            counts = [-(-one // 1) for one in load]
            if any(k.max is not None and n > k.max
                   for k, n in zip(kinds, counts, strict=True)):  # fmt: skip
                continue
            if any(sum(k.gpus * n for k, n in zip(kinds, counts, strict=True)
                       if k.pool == pool) > gpus
                   for pool, gpus in file.supply.items()):  # fmt: skip
                continue
            cost = sum((exact(k.cost) * n for k, n in zip(kinds, counts, strict=True)),
                       Fraction(0))  # fmt: skip
            best = cost if best is None else min(best, cost)
    return best


def test_random_mixes_agree_with_brute_force() -> None:
    feasible = infeasible = 0
    for seed in range(60):
        rng = random.Random(seed)
        names = [f"g{j}" for j in range(rng.randint(1, 3))]
        buckets = rng.randint(1, 2)
        supply = {"p": rng.randint(0, 6)} if rng.random() < 0.4 else {}
        raw: dict[str, Any] = {
            "gpu_info": {
                name: {
                    "cost": rng.randint(1, 40) / 10,
                    "tputs": [[rng.choice([0, 1, 2, 3, 5]) for _ in range(buckets)]],
                    "max": rng.choice([None, 0, 1, 2]),
                    "pool": "p" if supply and rng.random() < 0.6 else None,
                    "gpus": rng.choice([1, 2]),
                }
                for name in names
            },
            "workload_distribution": [[0.5] * buckets],
            "total_request_rate": rng.randint(1, 12),
            "slice_factor": rng.randint(1, 3),
            "supply": supply,
        }
        file = MixFile.model_validate_json(json.dumps(raw))
        found, best = mix(file), brute(file)
        if best is None:
            infeasible += 1
            assert found.status.value == "INFEASIBLE", seed
            continue
        feasible += 1
        assert found.cost_usd_per_hour == pytest.approx(float(best)), seed
        routed = zip(*(r[0] for r in found.routing.values()), strict=True)
        served = [sum(parts) for parts in routed]
        assert served == pytest.approx([1.0] * buckets)
        assert all(load <= 1 for load in found.load.values())
    assert (feasible, infeasible) == (31, 29)


def written(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / "mix.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"total_request_rate": 0}, "total_request_rate"),
        ({"workload_distribution": [[0.5]]}, "entries"),
        ({"workload_distribution": [[0.0, 0.0]]}, "no share"),
        ({"slices": 3}, "slices"),
        ({"slice_factor": 0}, "slice_factor"),
    ],
)
def test_tables_are_read_strictly(
    tmp_path: Path, update: dict[str, Any], words: str
) -> None:
    raw = {
        "gpu_info": {"a": {"cost": 1, "tputs": [[1, 2]]}},
        "workload_distribution": [[0.5, 0.5]],
        "total_request_rate": 3,
        **update,
    }
    with pytest.raises(InvalidInstance, match=words):
        mix(written(tmp_path, raw))


def test_what_a_replica_serves_is_solved_for(tmp_path: Path) -> None:
    bucket = {"input_tokens": {"constant": 1024}, "output_tokens": {"constant": 256}}
    raw: dict[str, Any] = {
        "instance": str(CHAT),
        "gpu_types": {
            "h100": {"catalogue": "H100-SXM", "sizes": [1], "max_gpus": 2},
            "l4": {"catalogue": "L4", "sizes": [1]},
        },
        "buckets": [{**bucket, "request_rate_per_s": 20}],
        "slice_factor": 4,
    }
    found = mix(written(tmp_path, raw))
    served = found.tables.gpu_info["h100 x1"].tputs[0][0]
    assert served == found.capacity[0]["requests_per_s"] > 10
    assert found.counts["h100 x1"] == 2
    assert "2 h100 x1" in mix_text(found)
    del raw["gpu_types"]["l4"]
    raw["buckets"] = [{**bucket, "request_rate_per_s": 60}]
    assert mix(written(tmp_path, raw)).status.value == "INFEASIBLE"
