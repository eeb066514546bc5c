"""Suites: named lists of instances with their limits (suites/*.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from shardwright.cli.options import override
from shardwright.ingest import load
from shardwright.schema.instance import Instance

ROOT = Path(__file__).parent.parent
SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Case:
    """One instance of a suite, with what is changed and what is asked."""

    name: str
    file: str
    objective: str | None = None
    fix: str | None = None
    layers: int | None = None
    gpus: int | None = None
    wall_limit_s: float | None = None
    quick: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether the instance differs from its file beyond options."""
        return self.layers is not None or self.gpus is not None

    def instance(self) -> Instance:
        """The instance as it is solved."""
        whole = load(ROOT / self.file)
        return override(self._cut(whole), fix=self.fix, objective=self.objective)

    def _cut(self, whole: Instance) -> Instance:
        """The first layers, and one node of so many GPUs."""
        model, cluster = whole.model, whole.cluster
        if self.layers is not None:
            model = model.model_copy(update={"layers": model.layers[: self.layers]})
        if self.gpus is not None:
            node = cluster.nodes[0].model_copy(update={"gpus": self.gpus, "count": 1})
            cluster = cluster.model_copy(update={"nodes": (node,)})
        return whole.model_copy(update={"model": model, "cluster": cluster})


@dataclass(frozen=True)
class Suite:
    """Cases that share their time limits."""

    name: str
    title: str
    time_limit_s: float
    others_limit_s: float
    others: tuple[str, ...]
    cases: tuple[Case, ...]


def read_suite(name: str, quick: bool) -> Suite:
    """The suite of that name; with ``quick`` its short cases and limits."""
    with (SUITES / f"{name}.toml").open("rb") as file:
        document = tomllib.load(file)
    cases = tuple(Case(**case) for case in document["case"])
    others_limit = float(document["others_limit_s"])
    return Suite(
        name,
        document["title"],
        float(document["time_limit_s"]),
        min(others_limit, 3.0) if quick else others_limit,
        tuple(document["others"]),
        tuple(case for case in cases if case.quick or not quick),
    )
