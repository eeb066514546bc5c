"""Context parallelism as a choice: what is searched, what is refused, where it wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.plan.cases import instance as seventy

import shardwright as sw
from shardwright.ingest.consistency import consistency_errors
from shardwright.problem import Compiler, compile_problem
from shardwright.problem.context import context_degrees
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.workload import Engine, Grid, Lengths
from shardwright.solve import Solution, solve

INSTANCES = Path(__file__).parents[2] / "instances"
LLAMA = Path(__file__).parents[1] / "data" / "llama3.1-8b-long-prompts.yaml"
QWEN = INSTANCES / "moe" / "qwen3-235b-a22b-fp8-8xh200-long-prompts.yaml"
DEEPSEEK = INSTANCES / "moe" / "deepseek-v3-8xh200-long-prompts.yaml"


def loaded(path: Path, **changes: Any) -> Instance:
    return sw.load(path).model_copy(update=changes)


def shapes(subject: Instance) -> set[tuple[int, int, int]]:
    """(tp, cp, moe_dp) of every unit."""
    found = (unit.shape for unit in Compiler(subject).units)
    return {(s.tp, s.cp, s.moe_dp) for s in found}


def answer(subject: Instance) -> Solution:
    return solve(subject, time_limit_s=60, workers=1, explain=False)


# --- what is searched ---------------------------------------------------------------


def test_short_prompts_are_searched_without() -> None:
    """Nothing is added to instances that do not ask: no unit, no grid, no new hash."""
    subject = seventy()
    assert {cp for _, cp, _ in shapes(subject)} == {1}
    assert "context_parallel" not in Compiler(subject).grid_document()
    document = subject.model_dump(mode="json", by_alias=True)
    assert not {"cp", "moe_dp"} & set(document["fix"])
    assert not {"context_parallel", "moe_dp"} & set(document["grid"])


def test_long_prompts_are_searched_with() -> None:
    subject = loaded(LLAMA)
    assert context_degrees(subject) == (1, 2, 4, 8)
    assert Compiler(subject).grid_document()["context_parallel"] == [1, 2, 4, 8]
    found = shapes(subject)
    assert {(tp, cp) for tp, cp, _ in found} == {
        (tp, cp) for tp in (1, 2, 4, 8) for cp in (1, 2, 4, 8) if tp * cp <= 8
    }
    assert all(copies == cp for _, cp, copies in found)
    shorter = Lengths(constant=32_767)
    workload = subject.workload.model_copy(update={"input_tokens": shorter})
    assert context_degrees(subject.model_copy(update={"workload": workload})) == (1,)


@pytest.mark.parametrize(
    ("engine", "degrees"),
    [("vllm", (1,)), ("trtllm", (1,)), ("sglang", (1,)), ("generic", (1, 2))],
)
def test_the_grid_and_the_engine_decide(engine: Any, degrees: tuple[int, ...]) -> None:
    changes = {"engine": Engine(name=engine), "grid": Grid(context_parallel=(1, 2))}
    assert context_degrees(seventy().model_copy(update=changes)) == degrees


def test_copies_follow_the_group_under_sglang() -> None:
    found = shapes(loaded(QWEN))
    assert {(cp, copies) for _, cp, copies in found} == {
        (1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 8)
    }  # fmt: skip
    fixed = shapes(loaded(QWEN, fix=Fix(moe_dp=2)))
    assert {(cp, copies) for _, cp, copies in fixed} == {(2, 2)}
    generic = {"engine": Engine(name="generic"), "fix": Fix(cp=1, moe_dp=2)}
    found = shapes(loaded(QWEN, **generic))
    assert {(cp, copies) for _, cp, copies in found} == {(1, 2)}
    problem = compile_problem(loaded(QWEN, fix=Fix(cp=2, sequences=1)))
    alone = {u for u in range(len(problem.units)) if problem.stands_alone(u)}
    copied = {u for u, unit in enumerate(problem.units) if unit.shape.moe_dp > 1}
    assert alone == copied != set()


@pytest.mark.parametrize(
    ("path", "changes", "field", "words"),
    [
        (LLAMA, {"fix": Fix(cp=2), "engine": Engine(name="vllm")}, "fix.cp", "MLA"),
        (LLAMA, {"fix": Fix(cp=2), "engine": Engine(name="trtllm")}, "fix.cp", "Helix"),
        (LLAMA, {"fix": Fix(cp=2), "engine": Engine(name="sglang")}, "fix.cp", "dense"),
        (LLAMA, {"grid": Grid(context_parallel=(1, 2)), "engine": Engine(name="vllm")},
         "grid.context_parallel", "MLA"),
        (QWEN, {"fix": Fix(moe_dp=2), "engine": Engine(name="vllm")}, "fix.moe_dp",
         "copy experts"),
        (QWEN, {"fix": Fix(moe_dp=2, pp=2)}, "fix.moe_dp", "one stage"),
        (QWEN, {"fix": Fix(moe_dp=2, cp=4)}, "fix.moe_dp", "4 (cp)"),
    ],
)  # fmt: skip
def test_what_an_engine_does_not_run_is_refused_by_name(
    path: Path, changes: dict[str, Any], field: str, words: str
) -> None:
    errors = consistency_errors(loaded(path, **changes))
    assert [error.path for error in errors] == [field]
    assert words in str(errors[0])


# --- exact figures ------------------------------------------------------------------


def test_memory_of_llama_8b_to_the_byte() -> None:
    """Two ranks that share two sequences of 131,072 tokens, chunks of 2,048."""
    changes = {
        "slo": (),
        "engine": Engine(name="generic"),
        "fix": Fix(tp=1, cp=2, pp=1, dp=1, sequences=2, prefill_chunk_tokens=2048),
    }
    subject = loaded(LLAMA, **changes)
    full = subject.workload.model_copy(update={"kv_reserve": "max_context"})
    solution = answer(subject.model_copy(update={"workload": full}))
    assert solution.plan is not None
    (stage,) = solution.plan.document.replicas()[0].stages
    memory = stage.memory_bytes
    assert len(stage.gpus) == 2
    # all 8,030,261,248 parameters on each rank
    assert memory.weights == 2 * 8_030_261_248
    # 262,144 tokens of 32 layers · 2 · 8 heads · 128 · 2 B, half of them on each rank
    assert memory.kv_cache == 131_072 * 32 * 2 * 8 * 128 * 2 == 16 * 2**30
    # 2 + 1,024 tokens of 3 · 4,096 + 2 · 14,336 values; logits of 2 + 1 rows
    assert memory.activations == 1026 * 40_960 * 2 + 3 * 128_256 * 4
    # communicators of stage and group; 1,026 tokens of 4,096; keys and values of a
    # chunk and as much of the cache, 2 · 8 · 128 each; hidden states of a chunk
    buffers = 1026 * 4096 * 2 + 2 * 2048 * 2048 * 2 + 2048 * 4096 * 2
    assert memory.communication == 2 * 300_000_000 + buffers


# --- where it wins ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fix", "throughput", "cp", "moe_dp"),
    [
        (DEEPSEEK, Fix(), 62.693, 4, 1),
        (QWEN, Fix(tp=2), 156.4, 4, 4),
    ],
)
def test_it_is_chosen_where_prompts_are_long(
    path: Path, fix: Fix, throughput: float, cp: int, moe_dp: int
) -> None:
    found = answer(loaded(path, fix=fix))
    assert found.status.value == "OPTIMAL"
    assert found.result.objectives[0].value == pytest.approx(throughput, rel=1e-9)
    assert found.plan is not None
    stages = [s for r in found.plan.document.replicas() for s in r.stages]
    assert {(s.shape.cp, s.shape.moe_dp) for s in stages} == {(cp, moe_dp)}
    assert found.result.grid["context_parallel"] == [1, 2, 4, 8]


def test_nothing_else_meets_the_target() -> None:
    assert answer(loaded(DEEPSEEK, fix=Fix(cp=1))).status.value == "INFEASIBLE"


def test_copies_of_experts_are_needed() -> None:
    once = Fix(moe_dp=1, cp=4)
    assert answer(loaded(QWEN, fix=once)).status.value == "INFEASIBLE"
