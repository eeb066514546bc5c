"""The 67 cases and the recorded EPLB figures beside them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.experts import read_loads

HERE = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """A load table [L, E] and where it goes."""

    table: str
    config: str
    load: NDArray[np.float64]
    gpus: int
    nodes: int
    groups: int
    slots: int

    @property
    def name(self) -> str:
        return f"{self.table}/{self.config}"

    @property
    def hierarchical(self) -> bool:
        """EPLB's rule for its node-limited policy."""
        return self.nodes > 1 and self.groups % self.nodes == 0

    @property
    def per_gpu(self) -> int:
        return self.slots // self.gpus

    @property
    def size(self) -> int:
        """Layers times slots."""
        return len(self.load) * self.slots

    def shape(self) -> dict[str, Any]:
        """The arguments of plan_experts; nodes matter only with groups."""
        hier = self.hierarchical
        return {
            "gpus": self.gpus,
            "slots": self.slots,
            "nodes": self.nodes if hier else 1,
            "groups": self.groups if hier else None,
        }


@dataclass(frozen=True)
class Recorded:
    """Figures of one algorithm on one case."""

    max_load_mean: float
    max_load_worst: float
    wall_s: float


def cases() -> list[Case]:
    """All cases, by table and config."""
    found = []
    for path in sorted(HERE.glob("*.json")):
        table = read_loads(path)
        found += [
            Case(
                table.name,
                c["id"],
                table.load,
                c["num_gpus"],
                c["num_nodes"],
                c["num_groups"],
                c["num_slots"],
            )
            for c in table.configs
        ]
    return found


def recorded(algorithm: str) -> dict[str, Recorded]:
    """Figures of `deepseek_eplb` or `vllm_numpy` by case name."""
    with (HERE / "eplb_baseline.csv").open(newline="") as file:
        return {
            f"{row['instance']}/{row['config']}": Recorded(
                float(row["max_load_mean"]),
                float(row["max_load_worst"]),
                float(row["wall_s"]),
            )
            for row in csv.DictReader(file)
            if row["algorithm"] == algorithm
        }


def table(name: str) -> NDArray[np.float64]:
    """One load table by name."""
    return read_loads(HERE / f"{name}.json").load
