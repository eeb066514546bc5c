"""Claims that are decided, or estimated, by really solving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardwright.audit.case import Case
from shardwright.audit.evidence import Finding, Verdict
from shardwright.audit.figures import mixtures
from shardwright.audit.layout import plan_gpus
from shardwright.audit.memory import stage_shape
from shardwright.ingest.consistency import consistency_errors
from shardwright.schema.claims import FeasibilityClaim, OptimalClaim
from shardwright.schema.errors import FieldError, InvalidInstance
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.strategy_name import Strategy, parse_strategy

if TYPE_CHECKING:
    from shardwright.solve import Solution

TIME_LIMIT_S = 20.0
_NO_LIMITS = {
    "memory_imbalance": None,
    "compute_imbalance": None,
    "communication_share": None,
    "spare_gpus": 0,
    "max_gpus": None,
    "max_tensor_parallel": None,
    "max_cost_usd_per_hour": None,
}


def fix_of(strategy: Strategy, instance: Instance) -> Fix:
    """The strategy as decisions fixed beforehand.

    DP is the number of replicas, save where EP lies over it within a replica.
    """
    if not mixtures(instance):
        return Fix(tp=strategy.tp, pp=strategy.pp, dp=strategy.dp, cp=strategy.cp)
    shape = stage_shape(strategy, dense=False)
    inside = shape is not None and strategy.ep is not None and not strategy.attn_dp
    return Fix(
        tp=strategy.tp,
        pp=strategy.pp,
        ep=strategy.ep,
        moe_tp=strategy.moe_tp,
        attn_dp=strategy.dp if inside else strategy.attn_dp,
        dp=None if inside else strategy.dp,
        cp=strategy.cp,
    )


def memory_only(instance: Instance) -> Instance:
    """The instance without targets: what is left is memory and the engine's rules."""
    stages = min(256, len(instance.model.layers))
    kept = instance.limits.model_copy(
        update={**_NO_LIMITS, "max_pipeline_stages": stages}
    )
    workload = instance.workload.model_copy(update={"request_rate_per_s": None})
    return instance.model_copy(update={"workload": workload, "slo": (), "limits": kept})


def without_gpus(instance: Instance, count: int) -> Instance:
    """The instance after ``count`` GPUs of its first node have failed.

    Raises InvalidInstance where that node has fewer.
    """
    first, *others = instance.cluster.nodes
    usable = [g for g in range(first.gpus) if g not in {*first.reserved, *first.failed}]
    if count > len(usable):
        allowed = f"at most the {len(usable)} GPUs of the first node"
        error = FieldError("failed_gpus", str(count), allowed)
        raise InvalidInstance(instance.name, [error])
    failed = (*first.failed, *usable[len(usable) - count :])
    hit = {"failed": failed, "count": 1, "name": f"{first.name}-hit"}
    groups = [first.model_copy(update=hit), *others]
    if first.count > 1:
        groups.append(first.model_copy(update={"count": first.count - 1}))
    cluster = instance.cluster.model_copy(update={"nodes": tuple(groups)})
    return instance.model_copy(update={"cluster": cluster})


def feasibility(case: Case, claim: FeasibilityClaim) -> Finding:
    """Solve with the strategy fixed; a proof either way is a verdict."""
    strategy = parse_strategy(claim.strategy)
    survivors = case.instance
    if claim.failed_gpus:
        survivors = without_gpus(survivors, claim.failed_gpus)
    asked = memory_only(survivors) if claim.given == "memory" else survivors
    found, text = _decided(case, asked, strategy)
    if claim.failed_gpus:
        text = f"{_product(survivors, strategy)}; {text}"
    if found == "feasible" and claim.given == "memory":
        text += _with_all_limits(case, survivors, strategy)
    verdict: Verdict = "undecidable" if found is None else "wrong"
    if found == claim.claimed:
        verdict = "holds"
    elif found is not None and claim.against:
        verdict = "contradicted"
        text = f"by {', '.join(claim.against)}: {text}"
    return Finding(
        claim.id, claim.line, claim.quote, claim.claimed, found, verdict,
        f"{text}. {claim.note}" if claim.note else text, against=claim.against,
    )  # fmt: skip


def _product(survivors: Instance, strategy: Strategy) -> str:
    """GPUs that the degrees take beside those that are left."""
    groups = survivors.cluster.nodes
    left = sum(g.count * (g.gpus - len({*g.reserved, *g.failed})) for g in groups)
    takes = plan_gpus(strategy, "shared" if strategy.degree("ep") > 1 else "multiplied")
    if takes is None:
        return f"{left} GPUs are left"
    return f"{strategy} takes {takes} GPUs and {left} are left"


def _decided(
    case: Case, instance: Instance, strategy: Strategy
) -> tuple[str | None, str]:
    """feasible, infeasible or None, and why."""
    fixed = instance.model_copy(
        update={"fix": fix_of(strategy, instance), "objective": ("gpus",)}
    )
    if errors := consistency_errors(fixed):
        return "infeasible", "; ".join(map(str, errors))
    solution = _solve(case, fixed)
    status = solution.status.value
    if solution.plan is not None:
        return "feasible", f"solved with {strategy}: {_plan_text(solution, instance)}"
    if status != "INFEASIBLE":
        return None, f"missing: a proof; the solver has none in {TIME_LIMIT_S:g} s"
    conflict = solution.result.conflict
    reason = conflict.message if conflict else ""
    return "infeasible", f"proven for {strategy}: {reason}"


def _solve(case: Case, instance: Instance) -> Solution:
    key = instance.model_dump_json()
    if key not in case.solved:
        case.solved[key] = case.solve(instance, time_limit_s=TIME_LIMIT_S)
    solution: Solution = case.solved[key]
    return solution


def _plan_text(solution: Solution, instance: Instance) -> str:
    assert solution.plan is not None
    total = solution.plan.metrics["total"]
    stages = [s for r in solution.plan.document.replicas() for s in r.stages]
    weights = max(s.memory_bytes.weights for s in stages) / 1e9
    peak = max(s.memory_bytes.total() for s in stages) / 1e9
    layers = "+".join(str(s.layers[1] - s.layers[0]) for s in stages[:16])
    return (
        f"{total['gpus_used']} of {total['gpus_available']} GPUs, layers {layers}, "
        f"weights {weights:.4g} GB and in all {peak:.4g} GB on the fullest GPU"
    )


def _with_all_limits(case: Case, instance: Instance, strategy: Strategy) -> str:
    """What the targets of the instance say besides; they rest on its assumptions."""
    found, _ = _decided(case, instance, strategy)
    if found != "infeasible":
        return "" if found is None else "; every target of the instance holds as well"
    key = instance.model_copy(
        update={"fix": fix_of(strategy, instance), "objective": ("gpus",)}
    ).model_dump_json()
    solution = case.solved.get(key)
    conflict = solution.result.conflict if solution is not None else None
    rules = ", ".join(rule.rule for rule in conflict.rules) if conflict else ""
    return f"; with all targets of the instance it breaks {rules or 'its rules'}"


def optimal(case: Case, claim: OptimalClaim) -> Finding:
    """The strategy's rate and the best plan's, both by the cost model."""
    strategy, asked = parse_strategy(claim.strategy), case.instance
    workload = asked.workload.model_copy(update={"request_rate_per_s": None})
    free = {"workload": workload, "objective": ("throughput",), "fix": Fix()}
    own = estimates(case, strategy).get("requests_per_s")
    best = _solve(case, asked.model_copy(update=free))
    text = "missing: measurements of this plan and of others"
    if own is not None and best.plan is not None:
        rate = best.plan.metrics["total"]["requests_per_s"]
        text += (
            f"; by the cost model {strategy} sustains {own:.4g} requests/s, and the "
            f"best plan, {_outline(best)}, {rate:.4g} ({best.status.value})"
        )
    if claim.note:
        text += f". {claim.note}"
    return Finding(
        claim.id, claim.line, claim.quote, claim.claimed, None, "undecidable", text
    )


def _outline(solution: Solution) -> str:
    """Degrees of the first replica and how many replicas there are."""
    assert solution.plan is not None
    replicas = solution.plan.document.replicas()
    stages, shape = replicas[0].stages, replicas[0].stages[0].shape
    experts = f" ADP{shape.attn_dp} EP{shape.ep}" if stages[0].expert_slots else ""
    return f"TP{shape.tp}{experts} PP{len(stages)} DP{len(replicas)}"


def estimates(case: Case, strategy: Strategy) -> dict[str, Any]:
    """The solver's own figures for the plan that the claims describe, targets aside.

    Empty where it has none. They are estimates: no verdict rests on them.
    """
    base = memory_only(case.instance)
    fix = case.claims.plan or fix_of(strategy, base)
    fixed = base.model_copy(update={"fix": fix, "objective": ("throughput",)})
    if consistency_errors(fixed):
        return {}
    solution = _solve(case, fixed)
    if solution.plan is None:
        return {}
    metrics = solution.plan.metrics
    shares = {
        name: max(r[name] for r in metrics["replicas"])
        for name in ("communication_share", "bubble")
    }
    return {**metrics["total"], **shares}
