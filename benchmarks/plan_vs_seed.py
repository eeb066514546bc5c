"""The seed's own plan, evaluated, beside the best one.

``python -m benchmarks.plan_vs_seed`` prints it; ``benchmarks.solve`` appends it.
"""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from shardwright.check import Report
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.solve import Solution, solve

from .suite import Case

SEED = Case(
    "seed",
    "instances/seeds/llama3-70b-8xh100-means.yaml",
    fix="tp=2,pp=4,layers=20+20+20+20",
)
CLAIMED_GB = 17.5
CLAIMED_REQUESTS_PER_S = 10.0
READABLE = {"ns": ("ms", 1e6), "B": ("GB", 1e9), "mtok/s": ("tokens/s", 1e3)}
TARGETS = (
    "request_rate",
    "tpot_limit",
    "prefill_limit",
    "ttft_limit",
    "memory_fits",
    "memory_imbalance",
    "compute_imbalance",
)


def seed_report() -> str:
    """Weights, bubble, sustained rate and targets of the plan; what beats it."""
    instance = SEED.instance()
    fixed = solve(instance)
    view = fixed.plan or fixed.fixed
    report = fixed.report if fixed.plan else fixed.fixed_report
    assert view is not None
    assert report is not None
    best = _most_throughput(instance)
    parts = [
        f"## The seed's own plan (--fix {SEED.fix})",
        "",
        _stages(view.document),
        "",
        _figures(view.metrics, best),
        "",
        _targets(report),
        "",
        _better(view.metrics["total"], best),
    ]
    return "\n".join(parts)


def _most_throughput(instance: Instance) -> Solution:
    """The best plan under the same targets, the request rate aside."""
    workload = instance.workload.model_copy(update={"request_rate_per_s": None})
    free = {
        "workload": workload,
        "objective": ("throughput",),
        "fix": type(instance.fix)(),
    }
    return solve(instance.model_copy(update=free))


def _stages(plan: Plan) -> str:
    rows = []
    for replica in plan.replicas():
        for i, stage in enumerate(replica.stages):
            memory = stage.memory_bytes
            rows.append(
                [
                    f"{i} [{stage.layers[0]}, {stage.layers[1]})",
                    f"{memory.weights / 1e9:.1f}",
                    f"{CLAIMED_GB}",
                    f"{memory.total() / 1e9:.1f}",
                    f"{stage.decode_time_ns / 1e6:.3f}",
                ]
            )
    headers = ("stage", "weights GB", "as claimed", "memory GB", "stage ms")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _figures(metrics: dict[str, Any], best: Solution) -> str:
    total, replica = metrics["total"], metrics["replicas"][0]
    assert best.plan is not None
    other = best.plan.metrics["total"]
    rows = [
        ["requests/s sustained", total["requests_per_s"], other["requests_per_s"]],
        ["output tokens/s", total["output_tokens_per_s"], other["output_tokens_per_s"]],
        ["TPOT ms", total["tpot_ms"], other["tpot_ms"]],
        ["TTFT ms", total["ttft_ms"], other["ttft_ms"]],
        ["bubble", total["bubble"], other["bubble"]],
        ["bubble, flush formula", replica["bubble_flush_formula"], None],
        ["replicas", total["replicas"], other["replicas"]],
        ["GPUs", total["gpus_used"], other["gpus_used"]],
    ]
    headers = ("", "seed's plan", f"best plan ({best.result.status})")
    return tabulate(rows, headers, tablefmt="github", floatfmt=".4g")


def _targets(report: Report) -> str:
    rows = [
        [
            row.rule,
            row.entity,
            f"{row.quantity} {_read(row.left, row.unit)}",
            f"{row.relation} {_read(row.right, row.unit)}",
            "held" if row.holds else "MISSED",
        ]
        for row in report.rows
        if row.rule in TARGETS
    ]
    headers = ("target", "of", "found", "asked", "")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _read(number: Any, unit: str) -> str:
    """Figures in the units that the targets are stated in."""
    name, size = READABLE.get(unit, (unit, 1))
    return f"{float(number) / size:.5g} {name}"


def _better(total: dict[str, Any], best: Solution) -> str:
    """By how much, and what the seed's claim was."""
    assert best.plan is not None
    ours = best.plan.metrics["total"]["requests_per_s"]
    own = total["requests_per_s"]
    return (
        f"It sustains {own:.2f} requests/s with prefill counted, where "
        f"{CLAIMED_REQUESTS_PER_S:g} are claimed. The best plan sustains {ours:.2f} "
        f"({ours / own - 1:+.1%}); that is {str(best.result.status).lower()}, "
        "by the default solver."
    )


def main() -> None:
    """Print the report."""
    print(seed_report())


if __name__ == "__main__":
    main()
