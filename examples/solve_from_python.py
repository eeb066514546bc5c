"""Plan a deployment, read it, and ask what one more limit would cost.

Run from the repository's root: python examples/solve_from_python.py
"""

from pathlib import Path

import shardwright as sw

SEED = Path(__file__).parent.parent / "instances/seeds/llama3-70b-8xh100-means.yaml"

instance = sw.load(SEED)
solution = sw.solve(instance, time_limit_s=30)
print(solution.result.status, solution.result.objectives[0])

assert solution.plan is not None, solution.result.conflict
print(solution.plan.table("gpus"))
print(solution.plan.table("compliance"))
sw.check(instance, solution.plan).raise_if_bad()

# What if a GPU has to stay free for the next failure? And with half the load?
for spare, rate in ((1, 8.0), (1, 4.0), (2, 4.0)):
    limits = instance.limits.model_copy(update={"spare_gpus": spare})
    load = instance.workload.model_copy(update={"request_rate_per_s": rate})
    asked = instance.model_copy(update={"limits": limits, "workload": load})
    result = sw.solve(asked, time_limit_s=30).result
    found = [f"{o.name} {o.value:g} {o.unit}" for o in result.objectives if o.value]
    why = result.conflict.message if result.conflict else ""
    print(
        f"{spare} spare, {rate:g} requests/s: {result.status} {', '.join(found)}{why}"
    )
