"""Rule survive in the fleet program: what is left when replicas stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardwright.problem import Problem, Survival

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

Part = tuple[int, int]
"""Class and GPUs of a segment."""


def survive_gpus(
    model: CpModel, rates: Sequence[int], counts: Sequence[Any], rule: Survival
) -> None:
    """Any k GPUs lost: at worst they stop the k fastest replicas.

    Exactly one e_v for v in {0} + rates; e_v -> k v + sum_j max(0, r_j - v) n_j
    <= sum_j r_j n_j - load. The left side is the sum of the k largest rates for the
    best v, and never below it.
    """
    values = sorted({0, *rates})
    switches = [model.new_bool_var(f"loses{v}") for v in values]
    model.add_exactly_one(switches)
    for value, switch in zip(values, switches, strict=True):
        left = _weighted(counts, [min(r, value) for r in rates])
        row = left >= rule.rate_mtok_per_s + rule.count * value
        model.add(row).only_enforce_if(switch)


def survive_nodes(
    model: CpModel,
    problem: Problem,
    columns: Sequence[tuple[Sequence[Part], int]],
    counts: Sequence[Any],
    patterns: Sequence[tuple[tuple[int, int], tuple[int, ...], Any]],
    rule: Survival,
) -> None:
    """Any k nodes lost: k times the largest loss of a node, counted part by part.

    m_z >= r_j [n_j > 0] for every part z of j; w >= islands of a node * sum of m_z over
    the parts of P [y_P > 0]; sum_j r_j n_j - k w >= load.
    """
    fastest: dict[Part, Any] = {}
    top = max((rate for _, rate in columns), default=0)
    for (parts, rate), n in zip(columns, counts, strict=True):
        used = _used(model, n)
        for part in sorted(set(parts)):
            if part not in fastest:
                fastest[part] = model.new_int_var(0, top, f"fastest{part}")
            model.add(fastest[part] >= rate * used)
    per_node = max(Counter(i.node for i in problem.islands).values())
    most = top * max((len(p) for _, p, _ in patterns), default=0)
    worst = model.new_int_var(0, per_node * most, "node_loss")
    for (gpu_class, _), pattern, y in patterns:
        loss = sum(fastest.get((gpu_class, size), 0) for size in pattern)
        model.add(worst >= per_node * loss).only_enforce_if(_used(model, y))
    total = _weighted(counts, [rate for _, rate in columns])
    model.add(total - rule.count * worst >= rule.rate_mtok_per_s)


def _used(model: CpModel, count: Any) -> Any:
    used = model.new_bool_var("")
    model.add(count >= 1).only_enforce_if(used)
    model.add(count == 0).only_enforce_if(~used)
    return used


def _weighted(variables: Sequence[Any], weights: Sequence[int]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum(list(variables), list(weights))
