"""B: how many replicas of which column, on which island patterns (CP-SAT).

A pattern is a multiset of part sizes that fits an island; the maximal ones suffice.
The counting is exact for every size and every free-GPU count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.survival import survive_gpus, survive_nodes
from shardwright.problem import PoolRole, Problem, Signature
from shardwright.schema.errors import InstanceTooLarge

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

    from shardwright.formulations.cpsat.engine import EngineRun

MAX_PATTERNS = 20_000
IslandType = tuple[int, int]
Pattern = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One design as the fleet sees it."""

    signature: Signature
    gpus: int
    cost_micro_usd_per_hour: int
    rate_mtok_per_s: int
    role: PoolRole = "mixed"
    level: int = 1
    """Hops between islands are at this level of ``Problem.reach`` or faster."""


@dataclass(frozen=True)
class Need:
    """``count`` replicas of a signature with hops at ``level`` or faster."""

    signature: Signature
    level: int
    count: int


Cut = tuple[Need, ...]
"""Not all of these together: they cannot be placed."""


@dataclass(frozen=True)
class FleetRows:
    """Values of earlier goals that have to be kept (None: not limited)."""

    max_gpus: int | None = None
    max_cost: int | None = None
    min_rate: int | None = None


@dataclass(frozen=True)
class FleetModel:
    """The model with its variables."""

    model: CpModel
    counts: tuple[Any, ...]
    patterns: tuple[tuple[IslandType, Pattern, Any], ...]

    def chosen(self, run: EngineRun) -> list[int]:
        """Replicas per column."""
        return [run.value(n) for n in self.counts]

    def used_patterns(self, run: EngineRun) -> list[tuple[IslandType, Pattern, int]]:
        """Patterns in use and how often."""
        used = [(t, p, run.value(y)) for t, p, y in self.patterns]
        return [entry for entry in used if entry[2]]


def maximal_patterns(sizes: Sequence[int], free: int) -> list[Pattern]:
    """Multisets of ``sizes`` with sum <= free to which no size can be added."""
    usable = sorted({s for s in sizes if s <= free}, reverse=True)
    if not usable:
        return []
    found: list[Pattern] = []

    def grow(start: int, chosen: Pattern, left: int) -> None:
        if left < usable[-1]:
            found.append(chosen)
            if len(found) > MAX_PATTERNS:
                raise InstanceTooLarge(
                    f"more than {MAX_PATTERNS} patterns on {free} GPUs"
                )
            return
        for i in range(start, len(usable)):
            if usable[i] <= left:
                grow(i, (*chosen, usable[i]), left - usable[i])

    grow(0, (), free)
    return [p for p in found if _is_maximal(p, usable, free)]


def all_patterns(sizes: Sequence[int], free: int) -> list[Pattern]:
    """Every multiset of ``sizes`` with 0 < sum <= free."""
    usable = sorted({s for s in sizes if s <= free}, reverse=True)
    found: list[Pattern] = []

    def grow(start: int, chosen: Pattern, left: int) -> None:
        for i in range(start, len(usable)):
            if usable[i] <= left:
                larger = (*chosen, usable[i])
                found.append(larger)
                if len(found) > MAX_PATTERNS:
                    raise InstanceTooLarge(
                        f"more than {MAX_PATTERNS} patterns on {free} GPUs"
                    )
                grow(i, larger, left - usable[i])

    grow(0, (), free)
    return found


def _names_parts(problem: Problem) -> bool:
    """Whether a rule reads what lies on an island: fillers would count as replicas."""
    return any(rule.of_nodes for rule in problem.bounds.survive)


def _survive(
    model: CpModel,
    problem: Problem,
    columns: Sequence[Column],
    counts: Sequence[Any],
    patterns: Sequence[tuple[IslandType, Pattern, Any]],
) -> None:
    """survive; without patterns (islands forgotten) a node stops no replica."""
    for rule in problem.bounds.survive:
        if rule.of_nodes:
            pairs = [(c.signature, c.rate_mtok_per_s) for c in columns]
            survive_nodes(model, problem, pairs, counts, patterns, rule)
        else:
            rates = [c.rate_mtok_per_s for c in columns]
            survive_gpus(model, rates, counts, rule)


def _is_maximal(pattern: Pattern, sizes: Sequence[int], free: int) -> bool:
    return free - sum(pattern) < min(sizes)


def fleet_model(
    problem: Problem,
    columns: Sequence[Column],
    rows: FleetRows,
    goal: str,
    *,
    pooled: bool = False,
    cuts: Sequence[Cut] = (),
) -> FleetModel:
    """The pattern program over ``columns`` for one linear goal.

    ``cuts``: replicas that cannot be together. ``pooled`` forgets the islands: GPUs
    of a class are one pool (a relaxation).
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    counts = tuple(
        model.new_int_var(0, _most(problem, column), f"n{j}")
        for j, column in enumerate(columns)
    )
    patterns: list[tuple[IslandType, Pattern, Any]] = []
    if pooled:
        _class_capacity(model, problem, columns, counts)
    else:
        patterns = _gpu_used_once(model, problem, columns, counts)
    for cut in cuts:
        _not_all(model, columns, counts, cut)
    _survive(model, problem, columns, counts, patterns)
    rate = _served_rate(model, columns, counts)
    _fleet_rows(model, problem, columns, counts, rate, rows)
    _objective(model, columns, counts, rate, goal)
    return FleetModel(model, counts, tuple(patterns))


def _not_all(
    model: CpModel, columns: Sequence[Column], counts: Sequence[Any], cut: Cut
) -> None:
    """Of some signature and level there are fewer than the cut needs."""
    fewer = []
    for need in cut:
        mine = [
            n
            for n, c in zip(counts, columns, strict=True)
            if c.signature == need.signature and c.level <= need.level
        ]
        fewer.append(model.new_bool_var(""))
        model.add(sum(mine) < need.count).only_enforce_if(fewer[-1])
    model.add_bool_or(fewer)


def _most(problem: Problem, column: Column) -> int:
    """Replicas of one column that the GPUs of each class allow."""
    need: Counter[int] = Counter()
    for gpu_class, size in column.signature:
        need[gpu_class] += size
    most = min(problem.classes[k].free_gpus // n for k, n in need.items())
    return min(most, problem.usable_gpus // column.gpus)


def _gpu_used_once(
    model: CpModel,
    problem: Problem,
    columns: Sequence[Column],
    counts: Sequence[Any],
) -> list[tuple[IslandType, Pattern, Any]]:
    """sum_j #(k,z in j) n_j <= sum_P #(z in P) y_P;  sum_P y_P <= islands of a type."""
    demand: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    for column, n in zip(columns, counts, strict=True):
        for part, times in sorted(Counter(column.signature).items()):
            demand.setdefault(part, []).append((n, times))
    supply: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    variables = []
    for (k, free), islands in problem.island_types.items():
        sizes = [size for gpu_class, size in demand if gpu_class == k]
        mine = []
        listed = all_patterns if _names_parts(problem) else maximal_patterns
        for i, pattern in enumerate(listed(sizes, free)):
            y = model.new_int_var(0, len(islands), f"y{k}_{free}_{i}")
            mine.append(y)
            variables.append(((k, free), pattern, y))
            for size, times in sorted(Counter(pattern).items()):
                supply.setdefault((k, size), []).append((y, times))
        model.add(sum(mine) <= len(islands))
    for part, uses in sorted(demand.items()):
        model.add(_weighted(uses) <= _weighted(supply.get(part, [])))
    return variables


def _class_capacity(
    model: CpModel,
    problem: Problem,
    columns: Sequence[Column],
    counts: Sequence[Any],
) -> None:
    """sum_j GPUs of class k in j * n_j <= free GPUs of class k."""
    for k, gpu_class in enumerate(problem.classes):
        uses = [
            (n, sum(size for c, size in column.signature if c == k))
            for column, n in zip(columns, counts, strict=True)
        ]
        model.add(_weighted(uses) <= gpu_class.free_gpus)


def _weighted(pairs: Sequence[tuple[Any, int]]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum(
        [v for v, _ in pairs], [w for _, w in pairs]
    )


def _fleet_rows(
    model: CpModel,
    problem: Problem,
    columns: Sequence[Column],
    counts: Sequence[Any],
    rate: Any,
    rows: FleetRows,
) -> None:
    """request_rate, spare_gpus, max_gpus, max_cost_usd_per_hour, earlier goals."""
    b = problem.bounds
    total = {
        name: _weighted(
            [(n, getattr(c, name)) for n, c in zip(counts, columns, strict=True)]
        )
        for name in ("gpus", "cost_micro_usd_per_hour")
    }
    gpu_caps = [x for x in (problem.usable_gpus, rows.max_gpus) if x is not None]
    model.add(total["gpus"] <= min(gpu_caps))
    costs = [x for x in (b.max_cost_micro_usd_per_hour, rows.max_cost) if x is not None]
    if costs:
        model.add(total["cost_micro_usd_per_hour"] <= min(costs))
    rates = [x for x in (b.rate_mtok_per_s, rows.min_rate) if x is not None]
    if rates:
        model.add(rate >= max(rates))
    if b.replicas is not None:
        model.add(sum(counts) == b.replicas)
    model.add(sum(counts) >= 1)


def _served_rate(
    model: CpModel, columns: Sequence[Column], counts: Sequence[Any]
) -> Any:
    """pools_complete; rate = mixed + t, t <= rates of prefill, t <= those of decode."""
    pairs = list(zip(columns, counts, strict=True))
    pools = {
        role: [(n, c.rate_mtok_per_s) for c, n in pairs if c.role == role]
        for role in ("mixed", "prefill", "decode")
    }
    mixed = _weighted(pools["mixed"])
    if not pools["prefill"] and not pools["decode"]:
        return mixed
    _complete(model, pairs)
    most = sum(rate * _upper(n) for n, rate in pools["decode"])
    through = model.new_int_var(0, most, "through")
    model.add(through <= _weighted(pools["prefill"]))
    model.add(through <= _weighted(pools["decode"]))
    return mixed + through


def _upper(variable: Any) -> int:
    return int(max(variable.proto.domain))  # negative indices read element 0


def _complete(model: CpModel, pairs: Sequence[tuple[Column, Any]]) -> None:
    """Some prefill replica exactly when some decode replica."""
    both = model.new_bool_var("disaggregated")
    for role in ("prefill", "decode"):
        mine = [n for c, n in pairs if c.role == role]
        model.add(sum(mine) >= both)
        model.add(sum(mine) <= sum(_upper(n) for n in mine) * both)


def _objective(
    model: CpModel,
    columns: Sequence[Column],
    counts: Sequence[Any],
    rate: Any,
    goal: str,
) -> None:
    """gpus, cost: minimise; throughput: maximise; feasible: no objective."""
    if goal == "throughput":
        model.maximize(rate)
        return
    names = {"gpus": "gpus", "cost": "cost_micro_usd_per_hour"}
    if goal not in names:
        return
    total = _weighted(
        [(n, getattr(c, names[goal])) for n, c in zip(counts, columns, strict=True)]
    )
    model.minimize(total)
