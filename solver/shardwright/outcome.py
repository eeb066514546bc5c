"""Integers of the search in the units that people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from shardwright.cost.law import served
from shardwright.plan.tables.text import cut
from shardwright.problem import Compiler, Problem
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import Conflict, ConflictRule, ObjectiveValue
from shardwright.schema.workload import SloTarget, Survive
from shardwright.search.conflict import MinimalConflict

_UNITS: dict[str, tuple[str, int]] = {
    "gpus": ("GPUs", 1),
    "cost": ("USD/h", 10**6),
    "throughput": ("tokens/s", 10**3),
    "tpot": ("ms", 10**6),
    "ttft": ("ms", 10**6),
}
"""Goal -> unit and how many integer units make one of it."""


def goal_values(problem: Problem, plan: Plan) -> tuple[int, ...]:
    """Integer values of the goals, from the claims of the decoded plan."""
    replicas = plan.replicas()
    prices = {k.name: k.price_micro_usd_per_hour for k in problem.classes}
    stages = [stage for replica in replicas for stage in replica.stages]
    values = {
        "gpus": sum(len(s.gpus) for s in stages),
        "cost": sum(len(s.gpus) * prices[s.gpu_type] for s in stages),
        "throughput": served(r.served for r in replicas),
        "tpot": plan.tpot_ns(),
        "ttft": plan.ttft_ns(),
    }
    return tuple(values[goal] for goal in problem.goals)


def goal_bounds(
    goals: Sequence[str],
    values: Sequence[int | None],
    bounds: Sequence[int | None],
) -> tuple[ObjectiveValue, ...]:
    """Values and bounds in the goals' own units."""

    def scaled(goal: str, value: int | None) -> float | None:
        return None if value is None else value / _UNITS[goal][1]

    return tuple(
        ObjectiveValue(
            name=goal,
            unit=_UNITS[goal][0],
            value=scaled(goal, value),
            bound=scaled(goal, bound),
        )
        for goal, value, bound in zip(goals, values, bounds, strict=True)
    )


def conflict_document(
    instance: Instance,
    compiler: Compiler,
    problem: Problem,
    found: MinimalConflict,
    rate_mtok: int | None,
) -> Conflict:
    """The conflict in the user's words and units."""
    words = _Words(instance, problem)
    rules = tuple(
        ConflictRule(
            rule=rule,
            asked=words.asked(rule),
            best=words.best(rule, found.best)
            + (", rules not named aside" if rule in found.aside else ""),
        )
        for rule in found.rules
    )
    message = words.structural(compiler) if found.structural else words.message(rules)
    return Conflict(
        rules=rules,
        verified_minimal=found.verified,
        message=message,
        largest_request_rate_per_s=None
        if rate_mtok is None
        else float(Fraction(rate_mtok) / 1000 / problem.output_mean),
    )


class _Words:
    """How rules are asked for, and what can be had."""

    def __init__(self, instance: Instance, problem: Problem) -> None:
        self.instance = instance
        self.problem = problem

    def asked(self, rule: str) -> str:
        """The limit as stated."""
        b, limits = self.problem.bounds, self.instance.limits
        limited = [t for t in self.instance.slo if _rule_of(t) == rule]
        if any(t.percentile != "mean" for t in limited):
            return ", ".join(map(_target, limited))
        texts: dict[str, Callable[[], str]] = {
            "memory_fits": self._memory_asked,
            "request_rate": lambda: self._rate(b.rate_mtok_per_s or 0),
            "tpot_limit": lambda: _ms(b.tpot_ns),
            "ttft_limit": lambda: _ms(b.ttft_ns),
            "prefill_limit": lambda: _ms(b.prefill_ns),
            "e2e_limit": lambda: _ms(b.e2e_ns),
            "memory_imbalance": lambda: f"<= {limits.memory_imbalance:.1%}",
            "compute_imbalance": lambda: f"<= {limits.compute_imbalance:.1%}",
            "communication_share": lambda: f"<= {limits.communication_share:.1%}",
            "spare_gpus": lambda: f"{b.spare_gpus} GPUs kept free",
            "survive": lambda: "; ".join(map(_survival, limits.survive)),
            "max_gpus": lambda: f"<= {b.max_gpus} GPUs",
            "max_cost_usd_per_hour": lambda: f"<= {limits.max_cost_usd_per_hour} USD/h",
            "fix.dp": lambda: f"{b.replicas} replicas",
            "fix.pp": lambda: f"{b.stages} stages",
            "fix.layers": lambda: "+".join(str(n) for n in b.split or ()),
        }
        return texts[rule]()

    def _memory_asked(self) -> str:
        caps = sorted({k.capacity_bytes for k in self.problem.classes}, reverse=True)
        return f"<= {' / '.join(_gb(c) for c in caps)} per GPU"

    def _rate(self, mtok: int) -> str:
        requests = mtok / 1000 / float(self.problem.output_mean)
        return f"{cut(requests, 3)} requests/s ({cut(mtok / 1000, 1)} tokens/s)"

    def best(self, rule: str, best: dict[str, int]) -> str:
        """The best attainable when only this rule is dropped."""
        if rule not in best:
            return "the others hold without it"
        value = best[rule]
        if rule == "memory_fits":
            return f"{_gb(value)} per GPU needed"
        if rule == "request_rate":
            return self._rate(value)
        if rule in ("tpot_limit", "ttft_limit"):
            return _ms(value).removeprefix("<= ")
        if rule == "max_cost_usd_per_hour":
            return f"{value / 10**6:.2f} USD/h"
        return f"{value} GPUs"

    def message(self, rules: tuple[ConflictRule, ...]) -> str:
        """One sentence that names the binding rules and their figures."""
        gpus = self.problem.usable_gpus
        parts = [f"{r.rule} (asked {r.asked}; best {r.best})" for r in rules]
        return f"No plan on {gpus} usable GPUs can hold " + " together with ".join(
            parts
        )

    def structural(self, compiler: Compiler) -> str:
        """Nothing to choose from, whatever the limits."""
        if not self.problem.units:
            return (
                "No stage can be formed: no tensor-parallel degree divides the heads "
                "and fits an island (fix.tp, max_tensor_parallel, heads_divisible)."
            )
        if not self.problem.points:
            return (
                "No operating point is left: every prefill chunk is smaller than the "
                "prompt tokens that its batch brings (chunk_feeds_batch), or the grid "
                f"is empty: {compiler.grid.document()}"
            )
        return (
            "No replica can be composed: the fixed degrees need more GPUs, layers or "
            "stages than there are, or no replica count fits."
        )


def _rule_of(target: SloTarget) -> str:
    """Percentiles of the time between tokens belong to the TPOT rule."""
    return f"{'tpot' if target.metric == 'itl' else target.metric}_limit"


def _target(target: SloTarget) -> str:
    at = "mean" if target.percentile == "mean" else f"P{target.percentile:g}"
    return f"{at} <= {target.limit_ms:g} ms"


def _survival(asked: Survive) -> str:
    kind = "GPUs" if asked.nodes is None else "nodes"
    return f"any {asked.gpus or asked.nodes} {kind} lost, {asked.load:.0%} of the load"


def _ms(value_ns: int | None) -> str:
    return f"<= {(value_ns or 0) / 10**6:.3f} ms"


def _gb(value_bytes: int) -> str:
    return f"{value_bytes / 10**9:.3f} GB"
