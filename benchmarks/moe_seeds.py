"""The two mixture-of-experts seed reports: their claims, the best plan, the need.

``python -m benchmarks.moe_seeds`` prints it; claims are in moe_seeds.toml.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shardwright.ingest.parameters import parameter_count
from shardwright.plan.view import PlanView
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.model import MoeFfn
from shardwright.schema.plan import Plan, Stage
from shardwright.solve import Solution, solve

from .moe_seeds_page import (
    Answer,
    Best,
    Claim,
    Need,
    OwnPlan,
    Row,
    SeedReport,
    as_json,
    page,
    read_reports,
    shown,
    verdict,
)
from .suite import Case

TIME_LIMIT_S = 100.0
ROOM = 3
MOST_NODES = 4096


def least(holds: Callable[[int], bool], fails: int, most: int = MOST_NODES) -> int:
    """The least count above ``fails`` that holds; a rule that holds stays so."""
    low, step = fails, 1
    while not holds(low + step):
        low, step = low + step, 2 * step
        if low + step > most:
            raise ValueError(f"not with {low} either")
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def figures(instance: Instance, view: PlanView) -> dict[str, float]:
    """Every figure that a claim may be set beside."""
    stages = [s for replica in view.document.replicas() for s in replica.stages]
    total = view.metrics["total"]
    return {
        **_counts(total, view.document),
        **_model(instance),
        **_memory(total, stages),
        **_speed(instance, view, stages),
    }


def _counts(total: dict[str, Any], plan: Plan) -> dict[str, float]:
    replica = plan.replicas()[0]
    first = replica.stages[0]
    groups = first.shape.attn_dp
    return {
        "gpus_used": total["gpus_used"],
        "gpus_used_percent": 100 * total["gpus_used"] / total["gpus_installed"],
        "replicas": total["replicas"],
        "stages": len(replica.stages),
        "stage_gpus": len(first.gpus),
        "layers_per_stage": first.layers[1] - first.layers[0],
        "experts_per_gpu": first.expert_slots,
        "sequences_per_group": replica.operating_point.sequences / groups,
    }


def _model(instance: Instance) -> dict[str, float]:
    """Sizes from the widths; two bytes per parameter, two FLOP per use."""
    model = instance.model
    kinds = [model.layer_kinds[i].ffn for i in model.kind_indices()]
    experts = [ffn for ffn in kinds if isinstance(ffn, MoeFfn)]
    used = sum(3 * model.hidden * ffn.intermediate * ffn.top_k for ffn in experts)
    return {
        "expert_instances": sum(ffn.experts for ffn in experts),
        "expert_gflop_per_token": 2 * used / 1e9,
        "model_gb": 2 * parameter_count(model) / 1e9,
    }


def _memory(total: dict[str, Any], stages: Sequence[Stage]) -> dict[str, float]:
    parts = [stage.memory_bytes for stage in stages]
    return {
        "weights_gb": max(part.weights for part in parts) / 1e9,
        "memory_gb": max(part.total() for part in parts) / 1e9,
        "memory_percent": 100 * total["memory_peak_share_of_gpu"],
    }


def _speed(
    instance: Instance, view: PlanView, stages: Sequence[Stage]
) -> dict[str, float]:
    total, replicas = view.metrics["total"], view.metrics["replicas"]
    tokens = total["output_tokens_per_s"] + total["prompt_tokens_per_s"]
    return {
        "requests_per_s": total["requests_per_s"],
        "output_tokens_per_s": total["output_tokens_per_s"],
        "tokens_per_ms_per_gpu": tokens / 1e3 / _installed(instance),
        "tpot_ms": total["tpot_ms"],
        "ttft_ms": total["ttft_ms"],
        "stage_prefill_ms": max(stage.prefill_time_ns for stage in stages) / 1e6,
        "communication_percent": 100 * max(r["communication_share"] for r in replicas),
        "busy_percent": 100 * (1 - total["bubble"]),
    }


def _installed(instance: Instance) -> int:
    return sum(group.count * group.gpus for group in instance.cluster.nodes)


def own_plan(report: SeedReport, name: str) -> OwnPlan:
    """The report's plan as asked, claim by claim; the rules that it breaks."""
    instance = _case(name, report.fix).instance()
    solution = solve(instance, time_limit_s=TIME_LIMIT_S)
    view = solution.plan or solution.fixed
    checked = solution.report if solution.plan else solution.fixed_report
    assert view is not None
    assert checked is not None
    computed = figures(instance, view)
    broken = tuple(str(violation.message) for violation in checked.violations)
    rows = tuple(row(claim, computed) for claim in report.claims)
    return OwnPlan(name, _status(solution), broken, rows)


def row(claim: Claim, computed: dict[str, float]) -> Row:
    """The claim with its verdict."""
    found = claim.found(computed)
    word = verdict(claim.value, found, claim.why)
    return Row(claim.what, claim.quote, claim.value, found, word, claim.note)


def best_plan(name: str) -> Best:
    """The shipped instance, solved as it is."""
    instance = _case(name).instance()
    solution = solve(instance, time_limit_s=TIME_LIMIT_S)
    goals = ", then ".join(instance.objective or ())
    if solution.plan is None:
        return Best(name, goals, _status(solution), "none", {}, _conflict(solution))
    bounds = "; ".join(
        f"{goal.name} {shown(goal.value)}, bound {shown(goal.bound)}"
        for goal in solution.result.objectives
    )
    computed = figures(instance, solution.plan)
    shape = outline(solution.plan.document)
    return Best(name, goals, _status(solution), shape, computed, bounds)


def _conflict(solution: Solution) -> str:
    conflict = solution.result.conflict
    if conflict is None:
        return "no answer in time"
    rate = conflict.largest_request_rate_per_s
    most = "" if rate is None else f"; at most {rate:,.6g} requests/s"
    return ", ".join(f"{r.rule}: {r.asked}" for r in conflict.rules) + most


def need(report: SeedReport, name: str) -> Need:
    """The least cluster: fewest GPUs where nodes abound, then bisection from there.

    Nodes that hold fewer GPUs than the proven fewest are too few.
    """
    instance = _with_rate(_case(name).instance(), report.request_rate_per_s)
    group = instance.cluster.nodes[0]
    roomy = ROOM * group.count
    fewest = _gpus(_proven(instance, roomy))
    solved: dict[int, Solution] = {}

    def holds(nodes: int) -> bool:
        solved[nodes] = _proven(instance, nodes)
        return solved[nodes].plan is not None

    nodes = least(holds, -(-fewest // group.gpus) - 1, roomy)
    plan = solved[nodes].plan
    assert plan is not None
    used, sizes = _gpus(solved[nodes]), (nodes, nodes * group.gpus)
    status, shape = _status(solved[nodes]), outline(plan.document)
    return Need(name, *sizes, used, status, roomy, fewest, _claimed(report), shape)


def _claimed(report: SeedReport) -> int:
    """GPUs that the report takes to be enough."""
    return next(int(c.value or 0) for c in report.claims if c.what == "GPUs used")


def _with_rate(instance: Instance, rate: float) -> Instance:
    workload = instance.workload.model_copy(update={"request_rate_per_s": rate})
    asked = {"workload": workload, "objective": ("gpus",), "fix": Fix()}
    return instance.model_copy(update=asked)


def _proven(instance: Instance, nodes: int) -> Solution:
    """Fewest GPUs on that many nodes; only a proof will do."""
    group = instance.cluster.nodes[0].model_copy(update={"count": nodes})
    cluster = instance.cluster.model_copy(update={"nodes": (group,)})
    changed = instance.model_copy(update={"cluster": cluster})
    solution = solve(changed, time_limit_s=TIME_LIMIT_S)
    if _status(solution) not in ("OPTIMAL", "INFEASIBLE"):
        raise TimeoutError(f"{nodes} nodes: no proof in {TIME_LIMIT_S:g} s")
    return solution


def _gpus(solution: Solution) -> int:
    assert solution.plan is not None
    return int(solution.plan.metrics["total"]["gpus_used"])


def outline(plan: Plan) -> str:
    """Replicas of the same shape with their count, as '4 x [TP1 DP2 EP2]'."""
    shapes: dict[str, int] = {}
    for replica in plan.replicas():
        text = " + ".join(dict.fromkeys(_shape(stage) for stage in replica.stages))
        if len(replica.stages) > 1:
            text = f"PP{len(replica.stages)} of {text}"
        shapes[text] = shapes.get(text, 0) + 1
    return ", ".join(f"{count} x [{text}]" for text, count in shapes.items())


def _shape(stage: Stage) -> str:
    shape = stage.shape
    return f"TP{shape.tp} DP{shape.attn_dp} EP{shape.ep} MoE-TP{shape.moe_tp}"


def _status(solution: Solution) -> str:
    return str(solution.result.status.value)


def _case(name: str, fix: str | None = None) -> Case:
    return Case(name, f"instances/seeds/{name}.yaml", fix=fix)


def answer(report: SeedReport) -> Answer:
    """All three parts for one report."""
    return Answer(
        report,
        tuple(own_plan(report, name) for name in report.instances),
        tuple(best_plan(name) for name in report.shipped),
        tuple(need(report, name) for name in report.instances),
    )


def main() -> None:
    """Print Markdown, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moe_seeds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write moe_seeds.md and .json there")
    asked = parser.parse_args()
    answers = [answer(report) for report in read_reports()]
    text, document = page(answers), json.dumps(as_json(answers), indent=1)
    if asked.out is not None:
        (asked.out / "moe_seeds.md").write_text(text + "\n", encoding="utf-8")
        (asked.out / "moe_seeds.json").write_text(document + "\n", encoding="utf-8")
    print(document if asked.json else text)


if __name__ == "__main__":
    main()
