"""The fleet with its placement: ``python -m tests.differential.linked --cases 600``.

Per seed: a tiny instance on nodes below switches, with slow paths inside nodes. Its
optimum over all fleets and all islands they can lie on, every hop at the speed of its
link, is found by exhaustion; the solver, which chooses fleets and cuts those that
cannot be placed as assumed, has to find the same, and to say that it is proven.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

from tests.differential.command import main
from tests.generators import instance_of, random_document

from shardwright.problem import Design, Problem, StageChoice, compile_problem
from shardwright.schema.errors import InstanceTooLarge
from shardwright.schema.instance import Instance
from shardwright.schema.result import Status
from shardwright.search import solver
from shardwright.search.base import Interrupted, SearchLimits
from shardwright.search.exhaustive import Column, Count, DesignSearch, FleetSearch
from shardwright.search.goals import sense
from shardwright.search.packing import State, Yard

_MOST = 30_000
_EXHAUSTED_S = 10


def document_of(seed: int) -> dict[str, Any]:
    """A random document on three to six islands that differ in how they are joined."""
    found, draw = random_document(seed), Random(seed + 10**6)
    kinds = list(found["cluster"]["gpu_types"])
    count = draw.choice((3, 3, 4, 4, 5))
    nodes: list[dict[str, Any]] = []
    for i in range(count):
        gpus = draw.choice((1, 1, 1, 2)) if count < 5 else 1
        node = {
            "name": f"n{i}",
            "gpu": draw.choice(kinds[:1] * 3 + kinds),
            "gpus": gpus,
        }
        if gpus == 2 and draw.random() < 0.7:
            node["island_gpus"] = 1
            slow = draw.choice((0.001, 0.01, 0.5))
            node["topology"] = {"paths": {"socket_gbyte_per_s": slow}}
        nodes.append(node)
    names = [node["name"] for node in nodes]
    left = draw.randint(1, count - 1)
    share = draw.choice((1, 3, 20, 200))
    leaves = [
        {"name": "a", "nodes": names[:left], "oversubscription": share},
        {"name": "b", "nodes": names[left:]},
    ]
    root = {"name": "root", "switches": ["a", "b"]}
    found["cluster"]["nodes"] = nodes
    found["cluster"]["fabric"] = {"switches": [*leaves, root]}
    found["fix"] = {}
    found["limits"] = {"memory_fraction": 1.0}
    if draw.random() < 0.6:
        found["slo"] = []
        found["workload"].pop("request_rate_per_s", None)
    found["objective"] = draw.choice(
        (["throughput"], ["throughput", "gpus"], ["gpus", "throughput"], ["tpot"])
    )
    whole = _one_stage_bytes(compile_problem(instance_of(found)))
    if whole and draw.random() < 0.8:
        share = whole * draw.choice((0.4, 0.6, 0.9, 1.2)) / 10**9
        found["limits"]["memory_fraction"] = min(1.0, round(share, 7))
    return found


def _one_stage_bytes(problem: Problem) -> int:
    """The least that a replica of a single stage holds on a GPU; 0 without any."""
    stages = (StageChoice(u, 0, problem.layers) for u in range(len(problem.units)))
    designs = [
        Design(o, (stage,), ())
        for stage in stages
        for o in range(len(problem.points))
        if 1 in problem.stage_counts(o)
    ]
    return min((max(problem.figures(d).memory_bytes) for d in designs), default=0)


@dataclass(frozen=True)
class NamedYard(Yard):
    """Packs on islands by name: each hop needs a link of its level."""

    def after(self, segments: Any, state: State) -> frozenset[State]:
        """States reachable by placing one replica."""
        runs, levels = segments
        return frozenset(self._laid(runs, levels, state, None))

    @property
    def start(self) -> State:
        """The empty cluster, islands in their own order."""
        return tuple(island.free for island in self.problem.islands)

    def _laid(
        self, runs: Any, levels: tuple[int, ...], state: State, before: int | None
    ) -> Iterator[State]:
        if not runs:
            yield state
            return
        reach = self.problem.reach
        assert reach is not None
        for i, island in enumerate(self.problem.islands):
            if island.gpu_class != runs[0][0] or state[i] < runs[0][1] or i == before:
                continue
            if before is not None and reach.between(before, i) > levels[0]:
                continue
            taken = (*state[:i], state[i] - runs[0][1], *state[i + 1 :])
            rest = levels if before is None else levels[1:]
            yield from self._laid(runs[1:], rest, taken, i)


class Exhausted(FleetSearch):
    """Fleets over named islands."""

    def run(self) -> None:
        """Search all fleets."""
        assert isinstance(self.yard, NamedYard)
        self._grow(0, frozenset([self.yard.start]), ())


def columns_of(problem: Problem) -> list[Column]:
    """The best designs of every list of segments and levels of its hops."""
    search = DesignSearch(
        problem, Yard(problem), Count("designs", _MOST, SearchLimits(_EXHAUSTED_S))
    )
    levels = range(1, len(problem.tables.slower_hops) + 2)
    kept: dict[Any, list[Column]] = {}
    for point in range(len(problem.points)):
        for column in search.designs(point):
            crossings = column.design.crossings
            for told in product(levels, repeat=sum(map(bool, crossings))):
                rest = iter(told)
                marks = tuple(next(rest) if cross else 0 for cross in crossings)
                design = replace(column.design, crossings=marks)
                figures = problem.figures(design)
                if problem.design_fits(design, figures):
                    key: Any = (column.segments, told)
                    one = replace(
                        column,
                        segments=key,
                        design=design,
                        rate=problem.rated(design).rate_mtok_per_s,
                        tpot=figures.times.tpot_ns,
                        ttft=figures.times.ttft_ns,
                    )
                    search._keep(kept.setdefault(key, []), one)
    return [column for key in sorted(kept) for column in kept[key]]


def exhausted(problem: Problem) -> tuple[int, ...] | None:
    """The optimum over all fleets and placements."""
    yard = NamedYard(problem)
    fleets = Count("fleets", _MOST, SearchLimits(_EXHAUSTED_S))
    search = Exhausted(problem, columns_of(problem), yard, fleets)
    search.run()
    if search.best is None:
        return None
    pairs = zip(problem.goals, search.best, strict=True)
    return tuple(sense(goal) * value for goal, value in pairs)


def compare(seed: int) -> Counter[str]:
    """Assert that both agree; what was seen, to be counted."""
    instance = instance_of(document_of(seed))
    problem = compile_problem(instance)
    if problem.reach is None or not problem.units or not problem.points:
        return Counter(skipped=1)
    try:
        best = exhausted(problem)
    except (InstanceTooLarge, Interrupted):
        return Counter({"too large": 1})
    limits = SearchLimits(time_limit_s=60, workers=1)
    outcome = solver("default").solve(problem, limits)
    if best is None:
        assert outcome.status is Status.INFEASIBLE, (seed, outcome)
        return Counter(infeasible=1)
    seen = Counter(feasible=1)
    seen["with slower links"] += problem.reach.slower > 0
    seen["with cuts"] += "link_cuts" in (outcome.model_size or {})
    if outcome.status is Status.OPTIMAL:
        assert outcome.values == best, (seed, best, outcome)
        return seen + Counter(proven=1)
    assert outcome.fleet is not None, (seed, best, outcome)
    signs = [sense(goal) for goal in problem.goals]
    first, bound = signs[0] * best[0], outcome.bounds[0]
    assert signs[0] * outcome.values[0] >= first, (seed, best, outcome)
    assert bound is None or signs[0] * bound <= first, (seed, best, outcome)
    return seen + Counter({"with a gap": 1})


def instance_and_problem(seed: int) -> tuple[Instance, Problem]:
    """The instance of a seed, compiled."""
    instance = instance_of(document_of(seed))
    return instance, compile_problem(instance)


if __name__ == "__main__":
    sys.exit(main("tests.differential.linked", compare))
