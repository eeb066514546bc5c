"""Feasibility by solving, and launch flags."""

from __future__ import annotations

from typing import Any

import pytest
from tests.audit.builders import dense, judged, mixture

from shardwright.audit.flags import table
from shardwright.audit.solved import memory_only, without_gpus
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.instance import Instance
from shardwright.schema.workload import Engine


def feasible(instance: Instance, claimed: str, strategy: str, **more: Any) -> Any:
    """The finding on such a claim."""
    item = {"type": "feasibility", "claimed": claimed, "strategy": strategy, **more}
    return judged(instance, item)


def test_pure_tensor_parallelism_is_feasible() -> None:
    assert feasible(dense(), "feasible", "TP8").verdict == "holds"
    wrong = feasible(dense(), "infeasible", "TP8")
    assert wrong.verdict == "wrong"
    assert "17.64 GB" in wrong.derivation


def test_what_does_not_fit_is_proven_infeasible() -> None:
    for strategy in ("TP1-PP1", "TP2-PP4-DP2", "TP2-PP100", "TP3"):
        held = feasible(dense(), "infeasible", strategy)
        assert (held.verdict, held.computed) == ("holds", "infeasible"), held


def test_targets_count_only_when_they_are_asked_for() -> None:
    one = feasible(dense(), "feasible", "TP2-PP4-DP1")
    assert one.verdict == "holds"
    assert "breaks request_rate" in one.derivation
    assert feasible(dense(), "feasible", "TP2-PP4-DP1", given="all").verdict == "wrong"
    slower = dense().workload.model_copy(update={"request_rate_per_s": 4.0})
    served = dense().model_copy(update={"workload": slower})
    assert feasible(served, "feasible", "TP4-PP1-DP2", given="all").verdict == "holds"


def test_context_parallelism_is_the_engines_to_run() -> None:
    """vLLM starts it with latent attention alone, SGLang with experts alone."""
    finding = feasible(dense(), "infeasible", "TP4-CP2")
    assert finding.verdict == "holds"
    assert "latent (MLA)" in finding.derivation
    other = dense().model_copy(update={"engine": Engine(name="sglang")})
    finding = feasible(other, "infeasible", "TP4-CP2")
    assert finding.verdict == "holds"
    assert "dense models" in finding.derivation
    other = dense().model_copy(update={"engine": Engine(name="generic")})
    assert feasible(other, "feasible", "TP4-CP2").verdict == "holds"
    assert feasible(other, "infeasible", "TP1-CP8").verdict == "holds"
    assert feasible(other, "infeasible", "TP4-CP4").verdict == "holds"


def test_recovery_after_failures() -> None:
    assert feasible(dense(), "feasible", "TP2-PP3", failed_gpus=1).verdict == "holds"
    assert feasible(dense(), "feasible", "TP2-PP4", failed_gpus=1).verdict == "wrong"
    with pytest.raises(InvalidInstance, match="8 GPUs of the first node"):
        feasible(dense(), "feasible", "TP2-PP4", failed_gpus=9)


def test_one_node_of_several_is_hit() -> None:
    hit = without_gpus(mixture(), 3).cluster.nodes
    assert [(g.count, g.failed) for g in hit] == [(1, (5, 6, 7)), (1, ())]
    assert memory_only(mixture()).limits.communication_share is None


DTYPES = "one of auto, bfloat16, float, float16, float32, half"


def flag(claimed: str, name: str, engine: str = "vllm", **more: Any) -> Any:
    """The finding on a flag."""
    item = {"type": "flag", "engine": engine, "flag": name, "claimed": claimed, **more}
    return judged(dense(), item)


@pytest.mark.parametrize(
    ("name", "claimed", "verdict", "computed"),
    [
        ("--max-num-seqs", "64", "holds", "64"),
        ("--max-num-seqs", "128", "wrong", "at most 64"),
        ("--max-num-seqs", "many", "wrong", "a whole number"),
        ("--max-num-seqs", "²", "wrong", "a whole number"),
        ("--max_num_seqs", "64", "holds", "64"),
        ("--max-model-len", "16384", "wrong", "at most 8192"),
        ("--gpu-memory-utilization", "0.85", "holds", "0.85"),
        ("--gpu-memory-utilization", "0.9", "wrong", "at most 0.85"),
        ("--gpu-memory-utilization", "85", "wrong", "a share above 0, at most 1"),
        ("--gpu-memory-utilization", "1e999999999", "wrong", "a number"),
        ("--dtype", "float16", "holds", "float16"),
        ("--dtype", "fp16", "wrong", DTYPES),
        ("--enforce-eager", "true", "holds", "true"),
        ("--enforce-eager", "1", "wrong", "a switch without a value"),
        ("--unheard-of", "1", "undecidable", None),
    ],
)  # fmt: skip
def test_flags(name: str, claimed: str, verdict: str, computed: str | None) -> None:
    finding = flag(claimed, name)
    assert (finding.verdict, finding.computed) == (verdict, computed), finding


def test_degrees_of_a_command_are_the_strategys() -> None:
    given = {"strategy": "TP2-PP4"}
    assert flag("2", "--tensor-parallel-size", **given).verdict == "holds"
    assert flag("4", "-tp", **given).computed == "2"
    # SGLang's tp-size is the world of a stage
    shape = {"strategy": "TP2-ADP4-EP8-PP1", "engine": "sglang"}
    assert flag("8", "--tp-size", **shape).verdict == "holds"
    assert flag("2", "--tp-size", **shape).verdict == "wrong"
    assert flag("0.85", "--kv_cache_free_gpu_memory_fraction", "trtllm").verdict == (
        "holds"
    )


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_tables_of_flags_are_well_formed(engine: str) -> None:
    known = table(engine)
    names = [name for found in known.flags for name in found.names]
    assert known.engine == engine
    assert len(names) == len(set(names))
    assert all(name.startswith("-") for name in names)
