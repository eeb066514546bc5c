"""What must hold between two answers of the default solver, whatever the optimum is.

No oracle: an instance is changed in a way whose effect on the optimum is known, and
both are solved. A relaxation never worsens it; another spelling leaves it.
"""

from __future__ import annotations

import pytest
from tests.search.relations import (
    INSTANCES,
    REAL,
    SEEDS,
    Change,
    Doc,
    changed,
    not_worse,
    solve_problem,
)

from shardwright.ingest import load
from shardwright.problem import compile_problem

# -- relaxations: the optimum never gets worse ---------------------------------------


def more_memory(document: Doc) -> Doc:
    for gpu in document["cluster"]["gpu_types"].values():
        number, _, unit = str(gpu["memory"]).partition(" ")
        gpu["memory"] = f"{int(float(number) * 1.3) + 1} {unit or 'B'}"
    return document


def looser_slo(document: Doc) -> Doc | None:
    for target in document.get("slo", []):
        target["limit_ms"] *= 1.25
    return document if document.get("slo") else None


def another_gpu(document: Doc) -> Doc:
    group = document["cluster"]["nodes"][0]
    spare = {"name": "spare", "gpu": group["gpu"], "gpus": 1}
    document["cluster"]["nodes"].append(spare)
    return document


def wider_node(document: Doc) -> Doc:
    """One more GPU at the end of the last node's list."""
    document["cluster"]["nodes"][-1]["gpus"] += 1
    return document


def less_load(document: Doc) -> Doc | None:
    rate = document["workload"].get("request_rate_per_s")
    if rate is None:
        return None
    document["workload"]["request_rate_per_s"] = rate * 0.7
    return document


def no_load(document: Doc) -> Doc | None:
    rate = document["workload"].pop("request_rate_per_s", None)
    return None if rate is None else document


def without_slo(document: Doc) -> Doc | None:
    return document if document.pop("slo", None) else None


def without_limits(document: Doc) -> Doc:
    limits = document.get("limits", {})
    kept = ("memory_fraction", "reserve_per_gpu")
    document["limits"] = {k: v for k, v in limits.items() if k in kept}
    return document


def without_fix(document: Doc) -> Doc | None:
    fix = {k: v for k, v in document.pop("fix", {}).items() if v is not None}
    # an operating point that was fixed is not always one of the grid
    points = ("sequences", "prefill_chunk_tokens", "micro_batches")
    return document if fix and not any(name in fix for name in points) else None


def unequal_stages(document: Doc) -> Doc | None:
    engine = document.setdefault("engine", {"name": "vllm"})
    rules = dict(engine.get("rules") or {})
    default = engine["name"] != "generic"
    if rules.get("equal_shape_per_stage") is False or not default:
        return None
    engine["rules"] = rules | {"equal_shape_per_stage": False}
    return document


def any_micro_batches(document: Doc) -> Doc | None:
    """q = p was a rule; its values are all in the grid of the relaxed instance."""
    engine = document.setdefault("engine", {"name": "vllm"})
    if engine["name"] == "generic":
        return None
    rules = dict(engine.get("rules") or {}) | {"micro_batches_equal_stages": False}
    engine["rules"] = rules
    document["grid"]["micro_batches"] = list(range(1, 9))
    return document


def odd_degrees(document: Doc) -> Doc | None:
    engine = document.setdefault("engine", {"name": "vllm"})
    if engine["name"] == "generic":
        return None
    rules = dict(engine.get("rules") or {}) | {"heads_divisible": False}
    engine["rules"] = rules
    return document


def one_more_point(document: Doc) -> Doc:
    grid = document["grid"]
    top = document["workload"].get("max_batch", 256)
    grid["sequences"] = sorted({*grid["sequences"], min(5, top)})
    return document


RELAXATIONS: tuple[Change, ...] = (
    more_memory,
    looser_slo,
    another_gpu,
    wider_node,
    less_load,
    no_load,
    without_slo,
    without_limits,
    without_fix,
    unequal_stages,
    any_micro_batches,
    odd_degrees,
    one_more_point,
)


@pytest.mark.parametrize("change", RELAXATIONS, ids=lambda c: c.__name__)
def test_a_relaxation_never_worsens_the_optimum(change: Change) -> None:
    applied = improved = 0
    for seed in SEEDS:
        answers = changed(seed, change)
        if answers is not None:
            applied += 1
            assert not_worse(seed, *answers), (seed, answers)
            improved += answers[0].values != answers[1].values
    print(f"{change.__name__}: {applied} instances, {improved} improved")
    assert applied >= 3


@pytest.mark.parametrize("change", [more_memory, looser_slo, wider_node, less_load])
@pytest.mark.parametrize("name", REAL)
def test_a_relaxation_never_worsens_a_real_optimum(name: str, change: Change) -> None:
    answers = changed(name, change)
    assert answers is None or not_worse(name, *answers)


def test_unequal_stages_win_on_seven_gpus() -> None:
    """Stages of two degrees beat every plan whose stages are all of one."""
    alike, unequal = (
        compile_problem(load(INSTANCES / f"production/llama3-70b-7of8xh100{name}.yaml"))
        for name in ("", "-generic")
    )
    best = solve_problem(unequal)
    assert best.values[0] > solve_problem(alike).values[0]
    assert best.fleet is not None
    [replica] = best.fleet.replicas
    assert len({unequal.units[s.unit].shape.tp for s in replica.design.stages}) > 1


# -- other spellings: the optimum stays ----------------------------------------------


def nodes_reversed(document: Doc) -> Doc:
    document["cluster"]["nodes"].reverse()
    return document


def types_reversed(document: Doc) -> Doc:
    types = document["cluster"]["gpu_types"]
    document["cluster"]["gpu_types"] = dict(reversed(types.items()))
    return document


def kinds_reversed(document: Doc) -> Doc:
    document["model"]["layer_kinds"].reverse()
    return document


def keys_reversed(document: Doc) -> Doc:
    return dict(reversed(document.items()))


def nodes_spelled_out(document: Doc) -> Doc:
    """``count: 2`` is two nodes of one each."""
    nodes = []
    for group in document["cluster"]["nodes"]:
        for i in range(group.pop("count", 1)):
            nodes.append({**group, "name": f"{group['name']}-{i}"})
    document["cluster"]["nodes"] = nodes
    return document


def rules_twice(document: Doc) -> Doc | None:
    """Every target a second time, and once more with a looser limit."""
    targets = document.get("slo", [])
    looser = [{**t, "limit_ms": t["limit_ms"] * 3} for t in targets]
    document["slo"] = [*looser, *targets, *targets]
    return document if targets else None


def an_unused_type(document: Doc) -> Doc:
    types = document["cluster"]["gpu_types"]
    types["unused"] = {**next(iter(types.values())), "name": "unused"}
    return document


def renamed(document: Doc) -> Doc:
    for group in document["cluster"]["nodes"]:
        group["name"] = f"z{group['name']}"
    document["name"] = "another"
    return document


SPELLINGS: tuple[Change, ...] = (
    nodes_reversed,
    types_reversed,
    kinds_reversed,
    keys_reversed,
    nodes_spelled_out,
    rules_twice,
    an_unused_type,
    renamed,
)


@pytest.mark.parametrize("change", SPELLINGS, ids=lambda c: c.__name__)
def test_a_spelling_changes_nothing(change: Change) -> None:
    for seed in SEEDS[::2]:
        answers = changed(seed, change)
        if answers is not None:
            before, after = answers
            assert before.status is after.status, seed
            assert before.values == after.values, seed


@pytest.mark.parametrize("name", REAL[:3])
def test_spellings_change_nothing_real(name: str) -> None:
    def all_at_once(document: Doc) -> Doc | None:
        for change in (nodes_reversed, types_reversed, kinds_reversed, renamed):
            document = change(document) or document
        return rules_twice(document)

    answers = changed(name, all_at_once)
    assert answers is not None
    assert answers[0].values == answers[1].values
