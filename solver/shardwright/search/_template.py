"""Start here for a new solver: copy, rename, replace the search, register, test.

This one is complete, only small-minded: it looks at single replicas of a single stage.
What every solver owes its caller is marked with OWED. To finish a new one:

1. add its name to ``search/__init__.py``;
2. add it to the lists in ``tests/search/test_agreement.py``: thousands of instances
   then compare it with brute force;
3. keep engines behind lazy imports: ``import shardwright`` loads none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.problem import Design, Fleet, PlacedReplica, Problem, StageChoice
from shardwright.schema.result import Status, StoppedBy
from shardwright.search.base import (
    Interrupted,
    SearchLimits,
    SearchOutcome,
    require_goals,
    require_single_islands,
)
from shardwright.search.goals import ALL_GOALS, better, fleet_fits, fleet_values
from shardwright.search.verify import verified, well_formed


@dataclass(frozen=True)
class TemplateSolver:
    """One replica, one stage, on the first island that holds it."""

    name: str = "template"

    def solve(self, problem: Problem, limits: SearchLimits) -> SearchOutcome:
        """The best single-stage replica; proves nothing."""
        # OWED: refuse goals that are not modelled, instead of ignoring them.
        require_goals(self.name, problem, ALL_GOALS)
        require_single_islands(self.name, problem)
        best: Fleet | None = None
        values: tuple[int, ...] = ()
        stopped: StoppedBy = "gap"
        try:
            for fleet in _candidates(problem):
                # OWED: poll often; time and the user's Ctrl-C both arrive here.
                limits.poll()
                # OWED: rules are judged by the problem's integers, never by a model.
                if not fleet_fits(problem, fleet):
                    continue
                found = fleet_values(problem, fleet)
                if best is None or better(problem.goals, found, values):
                    best, values = fleet, found
        except Interrupted as interruption:
            stopped = interruption.stopped_by
        if best is None:
            # OWED: INFEASIBLE only with a proof. This search has none, so: UNKNOWN,
            # without values, and without bounds that nobody derived.
            return SearchOutcome(Status.UNKNOWN, stopped, None)
        # OWED: ``verified`` is the only way out for a fleet. With a proof, pass
        # Status.OPTIMAL; with proven bounds only, pass them and Status.FEASIBLE.
        return verified(self.name, problem, best, Status.FEASIBLE, stopped)


def _candidates(problem: Problem) -> Iterator[Fleet]:
    """Deterministic order: equal input, equal answer."""
    for point in range(len(problem.points)):
        for unit, shape in enumerate(problem.units):
            stage = StageChoice(unit, 0, problem.layers)
            design = Design(point, (stage,), ())
            homes = [
                i
                for i, island in enumerate(problem.islands)
                if island.gpu_class == shape.gpu_class and island.free >= shape.gpus
            ]
            if homes and well_formed(problem, design):
                yield Fleet((PlacedReplica(design, ((homes[0],),)),))
