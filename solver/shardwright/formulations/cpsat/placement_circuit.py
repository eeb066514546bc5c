"""Set partition over groups of GPUs, and circuits for the order of stages.

One literal per group that a stage may be, one per pair of groups that may follow one
another; every GPU lies in at most one group; the chosen groups form one circuit per
replica through a depot, of exactly ``stages`` groups each.

    min  sum of group costs + sum of hops along the circuits

For replicas of one kind with equal stages and equal hops. Pairs that no plan better
than ``cutoff`` can use (their cheapest walk is too dear) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.engine import EngineRun, Limits, run
from shardwright.schema.result import Status

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

_MOST_ARCS = 60_000


@dataclass(frozen=True)
class GroupChoice:
    """Groups with their members and costs, and the replicas to make of them.

    ``hops`` holds (from, to, cost) of the pairs that may follow one another.
    """

    members: Sequence[Sequence[int]]
    costs: Sequence[int]
    hops: Sequence[tuple[int, int, int]]
    replicas: int
    stages: int


@dataclass(frozen=True)
class CircuitOutcome:
    """Groups of every replica in order (empty without a plan), and the bound."""

    paths: tuple[tuple[int, ...], ...] = ()
    bound: int | None = None
    infeasible: bool = False


def fits(choice: GroupChoice) -> bool:
    """Whether the program is of a size worth building."""
    return len(choice.hops) + 3 * len(choice.costs) <= _MOST_ARCS


def solve_circuits(choice: GroupChoice, cutoff: int, limits: Limits) -> CircuitOutcome:
    """Disjoint paths that cost less than ``cutoff``, the cheapest; ``infeasible``
    when there are none.

    The partition alone, without the order, is solved first: its cost and the cheapest
    hops are a bound, and rows of the program with circuits.
    """
    hops = choice.replicas * (choice.stages - 1)
    least_hop = min((cost for _, _, cost in choice.hops), default=0)
    alone = _Build(choice)
    alone.model.minimize(alone.group_cost())
    parted = run(alone.model, limits)
    if parted.status is Status.INFEASIBLE or (hops and not choice.hops):
        return CircuitOutcome((), None, parted.status is Status.INFEASIBLE)
    bound = (parted.bound or 0) + hops * least_hop
    if not hops:
        return (
            CircuitOutcome(alone.paths(parted), bound)
            if parted.found
            else (CircuitOutcome((), bound))
        )
    if bound >= cutoff:
        return CircuitOutcome((), None, True)
    build = _Build(choice)
    build.order()
    build.model.add(build.group_cost() >= (parted.bound or 0))
    build.model.add(build.hop_cost() >= hops * least_hop)
    build.model.add(build.group_cost() + build.hop_cost() <= cutoff - 1)
    build.model.minimize(build.group_cost() + build.hop_cost())
    done = run(build.model, limits)
    if done.status is Status.INFEASIBLE:
        return CircuitOutcome((), None, True)
    bound = max(bound, done.bound or 0)
    return CircuitOutcome(build.paths(done) if done.found else (), bound)


class _Build:
    """The model: groups first, then their order."""

    def __init__(self, choice: GroupChoice) -> None:
        from ortools.sat.python import cp_model

        self.choice = choice
        self.model = cp_model.CpModel()
        self.used = [self.model.new_bool_var("") for _ in choice.costs]
        self.follow: dict[tuple[int, int], Any] = {}
        gpus: dict[int, list[Any]] = {}
        for group, literal in zip(choice.members, self.used, strict=True):
            for gpu in group:
                gpus.setdefault(gpu, []).append(literal)
        for literals in gpus.values():
            self.model.add_at_most_one(literals)
        count = choice.replicas * choice.stages
        self.model.add(cp_model.LinearExpr.sum(self.used) == count)

    def order(self) -> None:
        """Circuits through the depot."""
        self.follow = _circuits(self.model, self.choice, self.used)

    def group_cost(self) -> Any:
        """What the stages cost."""
        return _weighted(self.used, self.choice.costs)

    def hop_cost(self) -> Any:
        """What the hops cost."""
        pairs = self.choice.hops
        return _weighted(
            [self.follow[a, b] for a, b, _ in pairs], [c for *_, c in pairs]
        )

    def paths(self, done: EngineRun) -> tuple[tuple[int, ...], ...]:
        """Groups of every replica."""
        chosen = [g for g, literal in enumerate(self.used) if done.value(literal)]
        after = {a: b for (a, b), x in self.follow.items() if done.value(x)}
        heads = [g for g in chosen if g not in set(after.values())]
        return tuple(_path(g, after) for g in heads)


def _weighted(terms: Sequence[Any], weights: Sequence[int]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum([*terms], [*weights])


def _path(group: int, after: dict[int, int]) -> tuple[int, ...]:
    path = [group]
    while path[-1] in after:
        path.append(after[path[-1]])
    return tuple(path)


def _circuits(
    model: CpModel, choice: GroupChoice, used: Sequence[Any]
) -> dict[tuple[int, int], Any]:
    """One circuit per replica through the depot 0; group g is node g + 1."""
    from ortools.sat.python import cp_model

    last, several = choice.stages - 1, choice.replicas > 1
    place = [model.new_int_var(0, last, "") for _ in used] if several else []
    arcs, follow, starts = [], {}, []
    for g, literal in enumerate(used):
        first, end = model.new_bool_var(""), model.new_bool_var("")
        arcs += [(0, g + 1, first), (g + 1, 0, end), (g + 1, g + 1, ~literal)]
        starts.append(first)
        if several:
            model.add(place[g] == 0).only_enforce_if(first)
            model.add(place[g] == last).only_enforce_if(end)
    for a, b, _ in choice.hops:
        literal = model.new_bool_var("")
        follow[a, b] = literal
        arcs.append((a + 1, b + 1, literal))
        if several:
            model.add(place[b] == place[a] + 1).only_enforce_if(literal)
    if several:
        model.add_multiple_circuit(arcs)
    else:
        model.add_circuit(arcs)
    model.add(cp_model.LinearExpr.sum(starts) == choice.replicas)
    return follow
