"""Disaggregated stages are asked for where they can exist, or refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardwright.ingest import load
from shardwright.ingest.consistency import consistency_errors
from shardwright.schema.instance import Fix, Instance
from shardwright.schema.workload import Engine, EngineRules

ROOT = Path(__file__).parents[2]


def seed(engine: str = "generic", rule: bool | None = None, **fix: Any) -> Instance:
    name = ROOT / "instances" / "seeds" / "moe-30b-16gpu-apart.yaml"
    rules = EngineRules(disaggregated_experts=rule)
    changes = {"fix": Fix(**fix), "engine": Engine(name=engine, rules=rules)}  # type: ignore[arg-type]
    return load(name).model_copy(update=changes)


def refused(instance: Instance) -> dict[str, str]:
    return {e.path: f"{e.found}; {e.allowed}" for e in consistency_errors(instance)}


def test_the_seeds_layout_is_accepted() -> None:
    assert refused(seed(afd=(4, 4), tp=2, ep=4)) == {}
    assert refused(seed("sglang", True, afd=(4, 4))) == {}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engines_that_do_not_serve_them(engine: str) -> None:
    words = refused(seed(engine, afd=(4, 4)))["fix.afd"]
    assert words.startswith(f"4+4 with {engine}; engine.rules.disaggregated_experts")
    assert "fix.ping_pong" in refused(seed(engine, ping_pong=2))


def test_generic_may_forbid_them() -> None:
    assert "fix.afd" in refused(seed(rule=False, afd=(4, 4)))


def test_degrees_divide_their_gpus() -> None:
    words = refused(seed(afd=(4, 6), tp=3, ep=4, attn_dp=2))
    assert words == {
        "fix.tp": "3; a divisor of 4 (afd)",
        "fix.ep": "4; a divisor of 6 (afd)",
    }


def test_dense_models_have_no_experts_to_lay_apart() -> None:
    dense = load(
        ROOT / "instances" / "production" / "llama3-70b-6of8xh100-generic.yaml"
    )
    asked = dense.model_copy(update={"fix": Fix(afd=(4, 4))})
    assert refused(asked)["fix.afd"] == "4+4; a model with routed experts"
