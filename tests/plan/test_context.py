"""Plans with context groups: ranks, transfers, KV room, engines, tables, placement."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import shardwright as sw
from shardwright.plan import PlanView
from shardwright.plan.communication import exchanges, pass_totals
from shardwright.plan.experts import Place
from shardwright.plan.kv import kv_room
from shardwright.plan.named import traffic_of
from shardwright.plan.transfers import CONTEXT_ROWS
from shardwright.resilience.movement import stage_share
from shardwright.schema.instance import Fix
from shardwright.schema.workload import Engine
from shardwright.solve import solve

ROOT = Path(__file__).parents[2]
FILES = {
    "dense": "tests/data/llama3.1-8b-long-prompts.yaml",
    "experts": "instances/moe/qwen3-235b-a22b-fp8-8xh200-long-prompts.yaml",
    "latent": "instances/moe/deepseek-v3-8xh200-long-prompts.yaml",
}
FIXED = {
    "dense": Fix(tp=2, cp=2, pp=2, dp=1, sequences=4, prefill_chunk_tokens=4096),
    "experts": Fix(tp=2, cp=4, moe_dp=4, ep=2, dp=1, sequences=4),
    "latent": Fix(tp=2, cp=4, ep=8, dp=1, sequences=4, prefill_chunk_tokens=8192),
}


@cache
def view(name: str, engine: str | None = None) -> PlanView:
    """The view of a checked plan of these degrees."""
    changes: dict[str, object] = {"fix": FIXED[name], "slo": ()}
    if engine is not None:
        changes["engine"] = Engine.model_validate({"name": engine})
    subject = sw.load(ROOT / FILES[name]).model_copy(update=changes)
    solution = solve(subject, time_limit_s=30, workers=1, explain=False)
    assert solution.plan is not None
    return PlanView(subject, solution.plan.document)


def test_ranks_have_tensor_parallelism_fastest() -> None:
    (stage,) = view("experts").document.replicas()[0].stages
    places = [Place.of(stage, i) for i in range(8)]
    assert [p.tp for p in places] == [0, 1] * 4
    assert [p.cp for p in places] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {p.attn_dp for p in places} == {0}
    assert [p.ep for p in places] == [0, 1] * 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("engine", [None, "generic"])
def test_rows_of_transfers_make_the_whole(name: str, engine: str | None) -> None:
    seen = view(name, engine)
    for replica in seen.document.replicas():
        rows = exchanges(seen.anatomy, replica)
        totals = pass_totals(seen.anatomy, replica)
        assert sum(r.decode.total_ns for r in rows) == pytest.approx(
            totals.decode_ns, abs=2 * len(rows)
        )
        assert sum(r.prefill.total_ns for r in rows) == pytest.approx(
            totals.prefill_ns, abs=2 * len(rows)
        )
        found = {row.what for row in rows} & CONTEXT_ROWS
        cut = (engine or seen.instance.engine.name) != "sglang"
        assert found == (CONTEXT_ROWS if cut else {"prompt KV", "states"})


def test_gathered_bytes() -> None:
    seen = view("experts")
    rows = exchanges(seen.anatomy, seen.document.replicas()[0])
    row = next(r for r in rows if r.what == "prompt KV")
    # 7,200 tokens of 2 KV heads · 2 · 128 · 2 B on one rank, in 94 layers
    assert (row.prefill.count, row.prefill.bytes_each) == (94, 7200 * 2 * 2 * 128 * 2)


def test_kv_room() -> None:
    """Copies of a token count where every rank keeps the whole cache."""
    whole, cut = view("experts"), view("experts", "generic")
    each = 94 * 2 * 4 * 128 * 2
    rooms = [kv_room(v.anatomy, v.document.replicas()[0]) for v in (whole, cut)]
    assert [room.bytes_per_token for room in rooms] == [4 * each, each]
    assert rooms[0].cache_bytes == pytest.approx(4 * rooms[1].cache_bytes, rel=1e-4)
    assert rooms[0].tokens_capacity is not None and rooms[1].tokens_capacity is not None
    assert rooms[1].tokens_capacity > 3.9 * rooms[0].tokens_capacity


def test_engines_that_can_start_it() -> None:
    def rules(name: str, engine: str | None = None) -> dict[str, list[str]]:
        return {
            v.engine: [o.rule for o in v.obstacles] for v in view(name, engine).engines
        }

    assert rules("dense") == {
        "vllm": ["latent_context"],
        "sglang": ["mixture_context", "cache_as_priced"],
        "trtllm": ["no_context"],
    }
    assert rules("experts", "generic")["sglang"] == ["cache_as_priced"]
    assert rules("latent")["vllm"] == []
    found = rules("experts")
    assert found["sglang"] == []
    assert found["trtllm"] == ["no_context", "one_copy_of_experts"]


def test_flags() -> None:
    """What the parallelism table tells to start the plan with."""
    sglang = view("experts").table("parallelism")
    for flag in ("--tp-size 8", "--attn-cp-size 4", "--moe-dp-size 4"):
        assert flag in sglang
    assert "--enable-prefill-cp" in sglang and "MoE-DP" in sglang
    assert "--moe-dp-size" not in view("dense").table("parallelism")
    vllm = view("latent").table("parallelism")
    assert "--prefill-context-parallel-size 4" in vllm
    assert "--decode-context-parallel-size 4" in vllm
    assert "--" not in view("latent", "generic").table("parallelism")


def test_tables() -> None:
    seen = view("experts")
    assert "TP2 CP4 DP1 EP2 MoE-DP4 PP1" in seen.table("summary")
    matrix = seen.table("gpus")
    assert "CP" in matrix and "context (CP)" in matrix
    dense = view("dense").table("gpus")
    assert "CP\n" not in dense and "TP    CP" in dense
    assert "All CP ranks decode all of it" in seen.table("communication")
    for name in FILES:
        for table in (
            "communication",
            "strategies",
            "memory",
            "modules",
            "parallelism",
        ):
            lines = view(name).table(table).splitlines()
            assert max(map(len, lines)) <= 100, (name, table)


def test_traffic_runs_across_tensor_parallel_groups() -> None:
    """Program C sees context groups as ranks that lie apart by tp."""
    seen = view("latent")
    (replica,) = traffic_of(seen.instance, seen.document).replicas
    strided = {(c.ranks, c.stride) for c in replica.stages[0].strided()}
    assert strided == {(4, 2)}


def test_what_a_rank_holds_for_movement() -> None:
    (stage,) = view("experts").document.replicas()[0].stages
    held = [stage_share(stage, i) for i in range(8)]
    assert held[0] == held[2] == held[4] != held[1]
