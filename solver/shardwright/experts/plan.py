"""One call from expert loads to a map with its proof: `plan_experts`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .affinity import NodeSplit, experts_by_node, split_over_nodes
from .close import Closed, close_rows
from .closed import solve_node_closed, solve_one_per_node
from .dispatch import SglangRule, Split, even_loads, lp_top, static_loads
from .effort import Effort
from .grouped import Groups, solve_grouped, solve_nodes
from .maps import check_map, keep_slots, moves_between, relabel, to_map
from .pack import Bools
from .problem import ExpertProblem, load_tables, pair_counts, validate
from .refine import Robust, Rules, refine_layer
from .replicate import Floats, Ints

Status = Literal["OPTIMAL", "FEASIBLE"]
_TIGHT = 1 + 1e-9
_SLACK = 1e-6


@dataclass(frozen=True)
class ExpertPlan:
    """A map with its value and the bound on every other map, per MoE layer.

    max_load, mean_load and bound are tokens per GPU under the asked split; with several
    scenarios they are relative to the mean GPU load (mean_load 1), worst or mean over
    the scenarios. status is OPTIMAL where max_load = bound (relative 1e-9). moves
    counts experts on GPUs that did not hold them in `current`. scenario_balance is
    mean / max per scenario and layer. crossing is the node split's, where pair counts
    were given.
    """

    physical_to_logical_map: tuple[tuple[int, ...], ...]
    gpus: int
    split: Split
    max_load: tuple[float, ...]
    mean_load: tuple[float, ...]
    bound: tuple[float, ...]
    status: tuple[Status, ...]
    moves: tuple[int, ...] | None
    scenario_balance: tuple[tuple[float, ...], ...]
    crossing: NodeSplit | None = field(default=None, compare=False)

    @property
    def balance(self) -> float:
        """Mean over layers of mean / max GPU load; 1 is perfect."""
        return float(np.mean(_ratio(self.mean_load, self.max_load)))

    @property
    def worst_balance(self) -> float:
        """The least of mean / max over the layers."""
        return float(np.min(_ratio(self.mean_load, self.max_load)))

    @property
    def gap(self) -> float:
        """Mean over layers of max_load / bound - 1."""
        return float(np.mean(_ratio(self.max_load, self.bound) - 1))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists; the map under the key that engines read."""
        return {
            "physical_to_logical_map": [list(r) for r in self.physical_to_logical_map],
            "gpus": self.gpus,
            "split": self.split,
            "balance": self.balance,
            "gap": self.gap,
            "layers": [
                dict(zip(("max", "mean", "bound", "status"), row, strict=True))
                for row in zip(
                    self.max_load, self.mean_load, self.bound, self.status, strict=True
                )
            ],
            "moves": None if self.moves is None else list(self.moves),
            "scenario_balance": [list(row) for row in self.scenario_balance],
            "crossing": None if self.crossing is None else self.crossing.crossing,
        }


def _ratio(top: tuple[float, ...], bottom: tuple[float, ...]) -> Floats:
    """top / bottom, 1 where both are zero."""
    over, under = np.asarray(top), np.asarray(bottom)
    return np.where(under > 0, over / np.where(under > 0, under, 1.0), 1.0)


def plan_experts(
    load: Any,
    *,
    gpus: int,
    slots: int,
    nodes: int = 1,
    groups: int | None = None,
    split: Split = "even",
    sglang_rule: SglangRule = "newer",
    robust: Robust = "worst",
    allow_copies_on_one_gpu: bool = False,
    current: Any = None,
    max_moves: int | None = None,
    transitions: Any = None,
    coactivation: Any = None,
    node_slack: float = 0.05,
    effort: Effort | None = None,
) -> ExpertPlan:
    """Which expert sits in which slot, for every MoE layer.

    load: tokens per expert, [L, E]; or scenarios [K, L, E], which weigh the same.
    slots: P over all GPUs, a multiple of `gpus`, P - E of them for second copies.
    groups: node-limited routing; every group of E / groups neighbours on one node.
    split: how the engine spreads an expert over its copies (`dispatch`); with
    sglang_static the plan is one on which that dispatch is even.
    current, max_moves: a map [L, P] to start from and the most experts per layer that
    may come to a GPU that did not hold them; slots of those that stay are kept.
    transitions [L - 1, E, E], coactivation [L, E, E]: pair counts; experts that go
    together share a node, while no node exceeds (1 + node_slack) * its mean load if
    swaps allow it.
    Raises ValueError that names the argument, what was found and what is allowed.
    """
    tables = load_tables(load)
    problem = ExpertProblem(
        tables,
        gpus,
        slots,
        nodes,
        groups,
        split,
        sglang_rule,
        robust,
        not allow_copies_on_one_gpu,
        None if current is None else np.asarray(current, dtype=np.int64),
        max_moves,
        pair_counts(tables, transitions, coactivation, node_slack),
    )
    validate(problem)
    return solve_problem(problem, effort or Effort())


def solve_problem(problem: ExpertProblem, effort: Effort) -> ExpertPlan:
    """Base plan, refinement where scenarios or a current map ask for it, result."""
    cut = None
    if problem.traffic is not None:
        cut = split_over_nodes(problem.traffic, problem.nodes, effort)
    if problem.current is not None and problem.max_moves is not None:
        maps, proven = problem.current, problem.any_split_bound
    else:
        done = _base(problem, cut, effort)
        maps, proven = to_map(done.packing.expert), done.bound
    maps, bound = _refined(problem, maps, proven, cut, effort)
    if problem.current is not None:
        maps = keep_slots(problem.current, maps, problem.gpus)
    check_map(maps, problem.load.shape[2], problem.gpus, problem.distinct)
    return _result(problem, maps, bound, cut)


def _base(problem: ExpertProblem, cut: NodeSplit | None, effort: Effort) -> Closed:
    """The plan for the (blended) loads, without regard to a current map."""
    load = problem.blend
    experts = None if cut is None else experts_by_node(cut.node, problem.nodes)
    if problem.node_bound:
        if problem.groups is not None:
            experts = _nodes_of_groups(problem, load, effort)
        if problem.rule == "newer":
            return solve_node_closed(load, problem.bins, problem.nodes, experts, effort)
        if experts is None:
            return solve_one_per_node(load, problem.bins, problem.nodes, effort)
    if experts is not None and problem.groups is None:
        node = Groups(problem.nodes, problem.nodes, problem.bins).node_bins
        packed = solve_nodes(load, experts, node, effort).packing
        return Closed(packed, problem.any_split_bound)
    if problem.groups is not None and problem.nodes > 1:
        shape = Groups(problem.groups, problem.nodes, problem.bins)
        return _honest(problem, solve_grouped(load, shape, effort))
    return _honest(problem, close_rows(load, problem.bins, effort))


def _honest(problem: ExpertProblem, done: Closed) -> Closed:
    """The bound of an even split of one table; weaker ones hold for the rest."""
    if problem.split == "even" and len(problem.load) == 1:
        return done
    return Closed(done.packing, problem.any_split_bound)


def _nodes_of_groups(problem: ExpertProblem, load: Floats, effort: Effort) -> Ints:
    """Experts [L, N, E / N] of the nodes that the groups are matched to."""
    assert problem.groups is not None
    shape = Groups(problem.groups, problem.nodes, problem.bins)
    packing = solve_grouped(load, shape, effort).packing
    layers = load.shape[0]
    ids = packing.expert.reshape(layers, problem.nodes, -1)
    return np.array([[np.unique(node) for node in layer] for layer in ids])


def _refined(
    problem: ExpertProblem,
    maps: Ints,
    bound: Floats,
    cut: NodeSplit | None,
    effort: Effort,
) -> tuple[Ints, Floats]:
    """Local search from the base map (scenarios) or from the current map (moves)."""
    if len(problem.load) == 1 and problem.current is None:
        return maps, bound
    start = maps if problem.current is None else problem.current
    free = problem.groups is None and not problem.node_bound and cut is None
    out = np.empty_like(start)
    for layer in range(start.shape[0]):
        expert = start[layer].reshape(problem.gpus, -1)
        rules = _rules(problem, expert, float(bound[layer]), layer, free, effort)
        load = problem.unit[:, layer]
        best = refine_layer(load, expert, rules, effort.deadline)
        if problem.current is not None and problem.max_moves is None:
            best = _fresh_if_better(problem, best, maps[layer], layer, free, effort)
        out[layer] = best.ravel()
    return out, bound


def _rules(
    problem: ExpertProblem,
    expert: Ints,
    bound: float,
    layer: int,
    free: bool,
    effort: Effort,
) -> Rules:
    """Target at mean load 1, budget, and the nodes that experts are bound to."""
    mean = 1.0
    if len(problem.load) == 1:
        mean = float(problem.load[0, layer].sum()) / problem.gpus or 1.0
    shape = (problem.load.shape[2], problem.nodes)
    node_of = np.ones(shape, dtype=bool)
    if not free and problem.nodes > 1:
        node_of = _home_nodes(problem, expert, layer)
    return Rules(
        bound / mean * (1 + effort.tolerance),
        problem.max_moves,
        problem.distinct,
        node_of,
        transfers=not problem.node_bound,
        within_node=problem.node_bound,
        robust=problem.robust,
    )


def _home_nodes(problem: ExpertProblem, expert: Ints, layer: int) -> Bools:
    """[E, N]: nodes that hold each expert (its group) in a map; one where closed."""
    nodes, experts = problem.nodes, problem.load.shape[2]
    node_of = np.zeros((experts, nodes), dtype=bool)
    per_node = problem.gpus // nodes
    node_of[expert, (np.arange(problem.gpus) // per_node)[:, None]] = True
    if problem.groups is not None:
        by_group = node_of.reshape(problem.groups, -1, nodes).max(axis=1)
        node_of = np.repeat(by_group, experts // problem.groups, axis=0)
    tied = problem.groups is not None or problem.traffic is not None
    one_node = tied or problem.rule == "newer"
    if one_node and (node_of.sum(axis=1) > 1).any():
        bad = int(np.flatnonzero(node_of.sum(axis=1) > 1)[0])
        raise ValueError(
            f"current[{layer}]: found expert {bad} or its group on several nodes, "
            "allowed one node (groups, affinity or sglang_static)"
        )
    return node_of


def _fresh_if_better(
    problem: ExpertProblem,
    best: Ints,
    fresh: Ints,
    layer: int,
    free: bool,
    effort: Effort,
) -> Ints:
    """The base plan on renamed GPUs where it clearly beats the map that was kept."""
    per_block = problem.gpus if free else problem.gpus // problem.nodes
    old = problem.current
    assert old is not None
    shape = (problem.gpus, -1)
    experts = problem.load.shape[2]
    named = relabel(old[layer].reshape(shape), fresh.reshape(shape), experts, per_block)
    values = [_objective(problem, m.reshape(1, -1), layer)[0] for m in (best, named)]
    return named if values[1] < values[0] * (1 - effort.tolerance) else best


def _tops(problem: ExpertProblem, load: Floats, maps: Ints) -> Floats:
    """Busiest GPU [L] of one table [L, E] under the asked split."""
    if problem.split == "even":
        top: Floats = even_loads(load, maps, problem.gpus).max(axis=1)
        return top
    if problem.split == "lp":
        return lp_top(load, maps, problem.gpus)
    nodes, rule = problem.nodes, problem.rule
    static: Floats = static_loads(load, maps, problem.gpus, nodes, rule).max(axis=1)
    return static


def _objective(problem: ExpertProblem, maps: Ints, layer: int) -> Floats:
    """Even-split objective of a map of one layer, [1], mean load 1."""
    unit = problem.unit[:, layer : layer + 1]
    tops = np.array([even_loads(t, maps, problem.gpus).max(axis=1) for t in unit])
    both: Floats = tops.max(axis=0) if problem.robust == "worst" else tops.mean(axis=0)
    return both


def _result(
    problem: ExpertProblem, maps: Ints, bound: Floats, cut: NodeSplit | None
) -> ExpertPlan:
    """Value, bound and status of the final map."""
    tables = problem.load if len(problem.load) == 1 else problem.unit
    tops = np.array([_tops(problem, table, maps) for table in tables])
    means = tables.sum(axis=2) / problem.gpus
    over = tops.max(axis=0) if problem.robust == "worst" else tops.mean(axis=0)
    if (bound > over * (1 + _SLACK)).any():
        raise RuntimeError("a bound came out above a plan: this is a bug")
    bound = np.minimum(bound, over)
    moves = None
    if problem.current is not None:
        experts = tables.shape[2]
        counted = moves_between(problem.current, maps, experts, problem.gpus)
        moves = tuple(counted.tolist())
    safe = np.where(tops > 0, tops, 1.0)
    balance = np.where(tops > 0, means / safe, 1.0)
    return ExpertPlan(
        tuple(tuple(row) for row in maps.tolist()),
        problem.gpus,
        problem.split,
        tuple(over.tolist()),
        tuple(means.mean(axis=0).tolist()),
        tuple(bound.tolist()),
        tuple(
            "OPTIMAL" if o <= b * _TIGHT else "FEASIBLE"
            for o, b in zip(over, bound, strict=True)
        ),
        moves,
        tuple(tuple(row) for row in balance.tolist()),
        cut,
    )
