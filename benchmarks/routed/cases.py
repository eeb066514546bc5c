"""The suite, what was published about it, and what is asked of each case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwright.ingest.routed import load_routed
from shardwright.problem.routed import RoutedProblem, compile_routed
from shardwright.search.routed_flow import RoutedFlow, max_flow

INSTANCES = Path("instances/routed")
PUBLISHED = Path(__file__).parent / "data" / "published.json"


@dataclass(frozen=True)
class Case:
    """A file, a cap on stages, and the bars: least flow, largest relative gap."""

    name: str
    max_stages: int | None = None
    least_flow: float | None = None
    most_gap: float | None = None
    time_limit_s: float = 60.0


CASES = (
    Case("single24_llama70b", None, 2045.6, 0.0),
    Case("single24_llama70b", 15, 1515.7),
    Case("geo24_llama70b_full", None, 1754.0, 0.0, 120.0),
    Case("geo24_llama70b_pruned"),
    Case("l4x8_llama30b", None, 252.6, 0.0011),
    Case("a100x4_llama30b", None, 1044.53, 0.0011),
    Case("quality10_llama30b", None, 286.587, 0.0011),
)


@dataclass(frozen=True)
class Published:
    """A published placement, its flow computed here, and its solver's record."""

    how: str
    flow: RoutedFlow
    placement: dict[int, tuple[int, int]]
    solver: dict[str, Any]

    @property
    def tokens_per_s(self) -> float:
        """The flow on the suite's own graph."""
        return self.flow.value / 1e6

    @property
    def stages(self) -> str:
        """Shortest and longest route."""
        counts = [len(nodes) for nodes, _ in self.flow.routes]
        if not counts:
            return "-"
        low, high = min(counts), max(counts)
        return str(low) if low == high else f"{low}-{high}"


def problem_of(name: str) -> RoutedProblem:
    """The integers of a case."""
    return compile_routed(load_routed(INSTANCES / f"{name}.json"))


def published(name: str) -> list[Published]:
    """What was published for a case, evaluated on its graph."""
    document = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    problem = problem_of(name)
    index = {node: i for i, node in enumerate(problem.ids)}
    found = []
    for how, entry in document["cases"].get(name, {}).items():
        placed = {index[n]: (start, held) for n, start, held in entry["placement"]}
        flow = max_flow(problem, placed)
        found.append(Published(how, flow, placed, entry.get("gurobi") or {}))
    return found
