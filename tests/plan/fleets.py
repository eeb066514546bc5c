"""Fleets that tables and figures are tested on, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tests.plan.cases import (
    H100,
    L4,
    design,
    instance,
    mixed_cluster,
    mixture_model,
    seed,
    windowed_model,
)

from shardwright.check import check
from shardwright.cost.shape import StageShape
from shardwright.ingest import instance_sha256
from shardwright.plan import PlanView, decode, why_idle
from shardwright.problem import Fleet, PlacedReplica, Problem, compile_problem
from shardwright.schema.instance import Instance
from shardwright.schema.result import ObjectiveValue, Result, Status, StoppedBy

Case = tuple[Instance, Problem, Fleet]


def mixed() -> Case:
    """Two replicas, one across GPU types; GPUs reserved, failed, spare and left."""
    one = instance(
        cluster=mixed_cluster(),
        engine={"name": "generic"},
        objective=["throughput"],
        limits={"spare_gpus": 1},
        grid={"sequences": [32, 64]},
    )
    problem = compile_problem(one)
    pair = design(problem, [("H100", 2, 40), ("H100", 4, 40)], sequences=64)
    across = design(
        problem,
        [("H100", 2, 38), ("H100", 4, 38), ("L4", 2, 4)],
        sequences=32,
        crossings=[True, True],
    )
    placed = (
        PlacedReplica(across, ((1,), (1,), (2,))),
        PlacedReplica(pair, ((0,),)),
    )
    return one, problem, Fleet(placed)


def windows() -> Case:
    """Layers of two kinds on four L4-like GPUs with 48 GB, without targets."""
    gpu = {**L4, "memory": "48 GB", "island_gpus": 4}
    nodes = [{"name": "node", "gpu": "L40S", "gpus": 4}]
    one = instance(
        model=windowed_model(),
        cluster={"gpu_types": {"L40S": gpu}, "nodes": nodes},
        slo=[],
        limits={},
    )
    problem = compile_problem(one)
    stages = [("L40S", 1, n) for n in (14, 16, 16, 14)]
    return (
        one,
        problem,
        Fleet((PlacedReplica(design(problem, stages, sequences=16), ((0,),)),)),
    )


def single() -> Case:
    """Four replicas of two GPUs each, without a request rate."""
    gpus = {"name": "n" * 60, "gpu": "H100", "gpus": 8}
    base = instance()
    types = {"H100": base.cluster.gpu_types["H100"].model_dump(by_alias=True)}
    one = instance(
        cluster={"gpu_types": types, "nodes": [gpus]},
        workload={
            "input_tokens": {"mean": 1000, "cv": 1.2},
            "output_tokens": {"histogram": [[100, 1], [300, 2]]},
            "max_batch": 32,
            "max_context_tokens": 8192,
        },
        precision={"weights": "fp8", "kv_cache": "fp8"},
    )
    problem = compile_problem(one)
    two = design(problem, [("H100", 2, 80)], sequences=32, chunk=1024)
    return one, problem, Fleet((PlacedReplica(two, ((0,),)),) * 4)


def experts() -> Case:
    """A stage over two nodes, and two pipelines whose experts are in order."""
    nodes = [{"name": "node", "gpu": "H100", "gpus": 8, "count": 3}]
    one = instance(
        model=mixture_model(),
        cluster={"gpu_types": {"H100": H100}, "nodes": nodes},
        engine={"name": "sglang"},
        limits={},
        slo=[],
        grid={"sequences": [48, 64]},
    )
    problem = compile_problem(one)
    wide = StageShape(tp=1, attn_dp=16, moe_tp=1, ep=16, islands=2)
    narrow = StageShape(tp=2, attn_dp=1, moe_tp=2, ep=1)
    both = [("H100", narrow, 5), ("H100", narrow, 4)]
    placed = (
        PlacedReplica(design(problem, [("H100", wide, 9)]), ((0, 1),)),
        *[PlacedReplica(design(problem, both, sequences=48), ((2,),))] * 2,
    )
    return one, problem, Fleet(placed)


def loads() -> Case:
    """Experts placed for recorded loads, split over pairs of GPUs."""
    rows = [[1 + (i * (7 + layer)) % 13 for i in range(32)] for layer in range(8)]
    one = instance(
        model=mixture_model(),
        workload={
            "input_tokens": {"constant": 512},
            "output_tokens": {"constant": 128},
            "max_batch": 256,
            "max_context_tokens": 2048,
            "expert_loads": {"tokens": rows},
        },
        engine={"name": "sglang"},
        limits={},
        slo=[],
    )
    problem = compile_problem(one)
    shape = StageShape(tp=2, attn_dp=4, moe_tp=2, ep=4, redundant=4)
    chosen = design(problem, [("H100", shape, 9)], sequences=256)
    return one, problem, Fleet((PlacedReplica(chosen, ((0,),)),))


CASES: dict[str, Callable[[], Case]] = {
    "seed": seed,
    "mixed": mixed,
    "windows": windows,
    "single": single,
    "experts": experts,
    "loads": loads,
}


def result(
    status: Status = Status.OPTIMAL,
    stopped_by: StoppedBy = "proof",
    *,
    value: float | None = 8.0,
    bound: float | None = 8.0,
    gap: float | None = 0.0,
) -> Result:
    """A result without a plan."""
    goal = ObjectiveValue(name="gpus", unit="GPUs", value=value, bound=bound)
    return Result(
        status=status,
        stopped_by=stopped_by,
        gap=gap,
        objectives=(goal,),
        plan=None,
        metrics={},
        conflict=None,
        solve_seconds=0.25,
        solver="default",
        seed=0,
        grid={},
        model_size={},
        trajectory=(),
        instance_sha256="",
        versions={},
    )


@cache
def view(name: str) -> PlanView:
    """A checked view of a case, as solve() would return it."""
    one, problem, fleet = CASES[name]()
    plan = decode(one, problem, fleet, instance_sha256(one))
    return PlanView(
        instance=one,
        document=plan,
        result=result().model_copy(update={"plan": plan}),
        report=check(one, plan),
        idle_reasons=why_idle(one, problem, plan, proven=True),
    )
