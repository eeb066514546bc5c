"""Prefill and decode replicas worked out on paper, and plans that break their rules."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from tests.check.builders import Changes, Sketch, instance, plan_for, restated, spoiled
from tests.check.mixtures import MIXTURE, ONE_ISLAND, mixture
from tests.check.slow import ALONE, APART, CONSTANTS, DECODE, GPU, PREFILL, dense

from shardwright.check import Report, check
from shardwright.check.figures import ReplicaFigures
from shardwright.check.inventory import Inventory
from shardwright.check.lengths import mix_of
from shardwright.check.memory import kv_tokens
from shardwright.check.transfer import Transfer, prompt_cache_bytes, transfer_of
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan
from shardwright.schema.result import ObjectiveValue

SUBJECT = dense(APART)
PLAN = plan_for(SUBJECT, PREFILL, DECODE)
P, D = "pools.0.replicas.0", "pools.1.replicas.0"
LONE_NODE = {"cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 4}]}

# Caches of 100 tokens: 2 layers·16 B, 3,200 B. Two islands of "big": 2.5e5 B/s.
# x = 20 µs ("small" has the largest latency) + 3,200/2.5e5 s
FETCH_NS = 20_000 + 12_800_000


def replica_of(subject: Instance, sketch: Sketch) -> ReplicaFigures:
    return check(subject, plan_for(subject, sketch)).figures.replicas[0]


def transfer(subject: Instance) -> Transfer:
    return transfer_of(subject, mix_of(subject.workload), Inventory(subject.cluster))


def broken(subject: Instance, plan: Plan, *goals: ObjectiveValue) -> set[str]:
    return set(check(subject, plan, goals).broken())


# --- figures --------------------------------------------------------------------------


def test_the_right_plan_is_accepted() -> None:
    check(SUBJECT, PLAN).raise_if_bad()


def test_prefill_point() -> None:
    # chunk 250: three prompts in a micro-batch at most; K = ⌈100/250⌉, s = ⌈100/1⌉
    sketch = Sketch(GPU, 1, 2, 250, role="prefill")
    point = replica_of(SUBJECT, sketch).point
    assert (point.sequences, point.micro_batch_sequences) == (2 * 2 * 3, 0)
    assert (point.prompt_tokens, point.chunk_count, point.prefill_tokens) == (
        250, 1, 100,
    )  # fmt: skip
    # chunk 30: K = 4 iterations of 25
    point = replica_of(SUBJECT, Sketch(GPU, 1, 1, 30, role="prefill")).point
    assert (point.sequences, point.prompt_tokens) == (2, 30)
    assert (point.chunk_count, point.prefill_tokens) == (4, 25)


def test_decode_point() -> None:
    point = replica_of(SUBJECT, DECODE).point
    assert (point.sequences, point.micro_batch_sequences) == (8, 8)
    assert (point.chunk, point.prompt_tokens) == (0, 0)
    assert (point.chunk_count, point.prefill_tokens) == (1, 0)


def test_prefill_times() -> None:
    # 100 prompt tokens and no sequences. Layer 2·336·100/5e5 = 134,400 µs, attention
    # 800,000, overhead 2. Stage 50; embedding 1,600; head of one row 4,096.
    replica = replica_of(SUBJECT, PREFILL)
    stage = replica.stages[0]
    assert stage.decode.total_ns == stage.prefill.total_ns == 1_874_550_000
    # ⌊100·200/100·10^12/Θ⌋; TTFT ⌈Θ/2⌉ + x + Π
    law = replica.law
    assert (law.tpot_ns, law.prefill_ns) == (1_874_550_000, 1_874_550_000)
    assert law.rate_mtok_per_s == 106_692
    assert law.ttft_ns == 937_275_000 + FETCH_NS + 1_874_550_000


def test_every_prefill_iteration_carries_its_chunk() -> None:
    # chunk 30, s = 25: τ of 30 tokens, σ of 25: a layer takes 9,344 µs a token and 2;
    # the stage 50, 16 a token and a head of 0.3 or 0.25 rows: read in 2,048
    replica = replica_of(SUBJECT, Sketch(GPU, 1, 1, 30, role="prefill"))
    stage = replica.stages[0]
    assert stage.decode.total_ns == 2 * 280_322_000 + 2_578_000
    assert stage.prefill.total_ns == 2 * 233_602_000 + 2_498_000
    # Y = 30·200/100; Π = K·σ
    assert replica.law.rate_mtok_per_s == 60 * 10**12 // 563_222_000
    assert replica.law.prefill_ns == 4 * 469_702_000


def test_prefill_memory() -> None:
    # R(2) = 200 tokens of constant prompts, above one context of 150
    stage = replica_of(dense({"workload.max_context_tokens": 150}), PREFILL).stages[0]
    assert stage.memory.kv_cache == 2 * 200 * 16
    # 100 tokens of 24 + max(24, 12) values and logits of ⌈100/100⌉ row
    assert stage.memory.activations == 100 * 2 * 48 + 128 * 4


def test_room_for_prompts_of_random_length() -> None:
    # L of 1 or 5 with weights 3 and 1: mean 2, variance 7 − 4 = 3.
    # ⌈16·2 + 2.33·√48⌉ = ⌈32 + 16.14⌉; decoding ones have the answers' tokens besides
    changes = {
        "workload.input_tokens": {"histogram": [[1, 3], [5, 1]]},
        "workload.max_context_tokens": 40,
    }
    workload = dense(changes).workload
    assert kv_tokens(workload, mix_of(workload), 16, "prefill") == 49
    assert kv_tokens(workload, mix_of(workload), 16, "decode") > 16 * 40 / 2


def test_decode_times() -> None:
    # 8 sequences, no prompt: layer 61,954 µs, stage 50 + 8 + 128 + 32,768
    replica = replica_of(SUBJECT, DECODE)
    assert replica.stages[0].decode.total_ns == 156_862_000
    assert replica.stages[0].prefill.total_ns == 0
    law = replica.law
    assert (law.tpot_ns, law.prefill_ns, law.ttft_ns) == (156_862_000, 0, 0)
    assert law.rate_mtok_per_s == 8 * 10**12 // 156_862_000
    # (8 + 0) tokens; logits of 8 rows
    memory = replica.stages[0].memory
    assert memory.activations == 8 * 2 * 48 + 8 * 128 * 4


def test_hops_of_roles() -> None:
    stages = [(0, 1, "big", "a-0", (0,)), (1, 2, "big", "a-0", (1,))]
    # 30 and 25 prompt tokens of 32 B over 5e5 B/s and 5 µs
    prefill = replica_of(SUBJECT, Sketch(stages, 1, 2, 30, role="prefill")).hops
    assert (prefill.decode_ns, prefill.prefill_ns) == ((1_925_000,), (1_605_000,))
    decode = replica_of(SUBJECT, Sketch(stages, 8, 2, 0, role="decode"))
    assert (decode.hops.decode_ns, decode.hops.prefill_ns) == ((261_000,), ())
    assert decode.law.prefill_ns == 0


def test_attention_ranks_share_the_chunk_of_a_prefill_replica() -> None:
    # 100 tokens on two ranks: all-reduces of 50·16 B, though a chunk's own iteration
    # has s = 100 on one: 10 + 1,600 and 10 + 3,200 µs
    subject = mixture({**APART, "workload.input_tokens": {"constant": 100}})
    stages = [(0, 2, "big", "a-0", range(4))]
    sketch = Sketch(stages, 1, 1, 100, shape=ONE_ISLAND, slots=3, role="prefill")
    stage = replica_of(subject, sketch).stages[0]
    # dispatch 12 + (100/4)·24/5e5; gather of ½ or one row: 10 + 256 a row
    exchange = 2 * (12_000 + 1_200_000)
    assert stage.decode.communication_ns == (
        2 * (1_610_000 + exchange) + 1_610_000 + 138_000
    )
    assert stage.prefill.communication_ns == (
        2 * (3_210_000 + exchange) + 3_210_000 + 266_000
    )


@pytest.mark.parametrize(
    ("changes", "fetch_ns", "rate"),
    [
        # ρ = ⌊2.5e5·200·1000/3,200⌋
        ({}, FETCH_NS, 15_625_000),
        # one island: 5e5 B/s of links, 5 µs
        (LONE_NODE, 5_000 + 6_400_000, 31_250_000),
        # its other islands have no usable GPU
        ({"cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 4, "island_gpus": 2,
                             "failed": [2], "reserved": [3]}]},
         5_000 + 6_400_000, 31_250_000),
        # a network above the links is no faster
        ({"cluster.gpu_types.big.network_gbyte_per_s": 1},
         20_000 + 6_400_000, 31_250_000),
        # a type without a node is of no concern
        ({"cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 4, "count": 2}]},
         15_000 + 12_800_000, 15_625_000),
        # a hop's latency above the network's; 10 of 100 tokens in a window
        ({f"{CONSTANTS}.hop_latency_us": 99,
          "model.layer_kinds.0.attention.window_tokens": 10},
         99_000 + 1_280_000, 156_250_000),
        # weights of 2·704 B on GPUs of 1,407 and 704 B: at least two of them
        ({"limits.memory_fraction": 1.0, "cluster.gpu_types.big.memory": "1407 B",
          "cluster.gpu_types.small.memory": "704 B"},
         20_000 + 6_400_000, 15_625_000),
        # the largest holds them all
        ({"limits.memory_fraction": 1.0, "cluster.gpu_types.big.memory": "704 B",
          "cluster.gpu_types.small.memory": "1408 B"}, FETCH_NS, 15_625_000),
        # nothing to move
        ({"model.layer_kinds.0.attention": None}, 20_000, None),
    ],
)  # fmt: skip
def test_transfer(changes: Changes, fetch_ns: int, rate: int | None) -> None:
    assert transfer(dense(changes)) == Transfer(fetch_ns, rate)


@pytest.mark.parametrize(
    ("engine", "weights"),
    [
        # a layer of the mixture on one GPU: 2·(192 + 80 + 144 + 10·96) + 2·36 = 2,824 B
        ({"name": "vllm"}, 5_648),
        ({"name": "generic", "rules": {"disaggregated_experts": False}}, 5_648),
        # where experts may have GPUs of their own 2·416 + 2·36 = 904 B
        ({"name": "generic"}, 1_808),
        ({"name": "vllm", "rules": {"disaggregated_experts": True}}, 1_808),
    ],
)
def test_experts_count_once_for_the_transfer_or_not_at_all(
    engine: Changes, weights: int
) -> None:
    short = {**MIXTURE, "workload.input_tokens": {"constant": 100}, "engine": engine}
    for memory, fetch in ((weights, FETCH_NS), (weights - 1, 20_000 + 6_400_000)):
        sizes = {
            f"cluster.gpu_types.{t}.memory": f"{memory} B" for t in ("big", "small")
        }
        subject = instance({**short, **sizes, "limits.memory_fraction": 1.0})
        assert transfer(subject).fetch_ns == fetch


def test_latent_caches_are_moved() -> None:
    # 4 + 1 values of 2 B in two layers for 100 tokens
    latent = {
        "type": "mla",
        "heads": 4,
        "q_lora_rank": 6,
        "kv_lora_rank": 4,
        "qk_nope_head_dim": 2,
        "qk_rope_head_dim": 1,
        "v_head_dim": 3,
    }
    subject = dense({"model.layer_kinds.0.attention": latent})
    assert prompt_cache_bytes(subject, mix_of(subject.workload)) == 2000


def test_links_cap_the_rate() -> None:
    # a network of 5 B/s: ρ = ⌊5·200·1000/3,200⌋ = 312 for each GPU
    slow = dense({**APART, "cluster.gpu_types.big.network_gbyte_per_s": 1e-8})
    for role, sequences in (("prefill", 1), ("decode", 8)):
        for gpus in ((0,), (0, 1)):
            stages = [(0, 2, "big", "a-0", gpus)]
            sketch = Sketch(stages, sequences, 1, 100, role=role)
            law = replica_of(slow, sketch).law
            assert law.rate_mtok_per_s == 312 * len(gpus)
    assert replica_of(slow, ALONE).law.rate_mtok_per_s > 312


def fleet(*sketches: Sketch) -> Report:
    subject = dense({"pools": "any"})
    return check(subject, plan_for(subject, *sketches))


def test_fleet_serves_what_both_pools_do() -> None:
    mixed = Sketch([(0, 2, "big", "a-1", (0,))], 8, 1, 100)
    # 106,692 of prefill, 51,000 of decode, 8e12/231,841,840 = 34,506 of a mixed one
    assert fleet(PREFILL, DECODE).figures.rate_mtok_per_s() == 51_000
    assert fleet(PREFILL, DECODE, mixed).figures.rate_mtok_per_s() == 51_000 + 34_506
    more = [
        Sketch([(0, 2, "big", "a-1", (g,))], 8, 1, 0, role="decode") for g in (1, 2)
    ]
    assert fleet(PREFILL, DECODE, *more).figures.rate_mtok_per_s() == 106_692


def test_goals_of_pools() -> None:
    # the slowest token of a decode replica, the first token of a prefill replica
    values = {"throughput": 51.0, "tpot": 156.862, "ttft": 2824.645, "gpus": 2.0}
    for name, value in values.items():
        goal = ObjectiveValue(name=name, unit="", value=value, bound=None)
        assert broken(SUBJECT, PLAN, goal) == set()
        wrong = goal.model_copy(update={"value": value * 1.001})
        assert broken(SUBJECT, PLAN, wrong) == {"objective_value"}


# --- spoiled plans --------------------------------------------------------------------

POINT = "operating_point"


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({f"{P}.{POINT}.sequences": 3}, {"operating_point"}),
        ({f"{P}.{POINT}.micro_batch_sequences": 1}, {"operating_point"}),
        ({f"{P}.{POINT}.prompt_tokens": 99}, {"operating_point"}),
        ({f"{P}.{POINT}.chunk_count": 2}, {"operating_point"}),
        ({f"{D}.{POINT}.prefill_chunk_tokens": 100}, {"operating_point"}),
        ({f"{D}.{POINT}.prompt_tokens": 4}, {"operating_point"}),
        ({f"{D}.{POINT}.chunk_count": 2}, {"operating_point"}),
        ({f"{D}.{POINT}.micro_batch_sequences": 0}, {"operating_point"}),
        # claims
        ({f"{P}.latency.ttft_ns": 2_824_645_000 - FETCH_NS}, {"ttft"}),
        ({f"{P}.latency.rate_mtok_per_s": 106_691}, {"rate_claim"}),
        ({f"{D}.latency.ttft_ns": 1}, {"ttft"}),
        ({f"{D}.latency.prefill_ns": 1}, {"prefill_latency"}),
        ({f"{D}.stages.0.prefill_time_ns": 1},
         {"prefill_time", "prefill_latency"}),
    ],
)  # fmt: skip
def test_spoiled_plan(changes: Changes, rules: set[str]) -> None:
    assert broken(SUBJECT, spoiled(PLAN, changes)) == rules


def test_a_rate_above_the_links() -> None:
    subject = dense({**APART, "cluster.gpu_types.big.network_gbyte_per_s": 1e-8})
    plan = plan_for(subject, PREFILL, DECODE)
    assert broken(subject, plan) == set()
    above = {f"{D}.latency.rate_mtok_per_s": 313}
    assert broken(subject, spoiled(plan, above)) == {"rate_claim"}


@pytest.mark.parametrize("role", ["mixed", "prefill", "decode"])
def test_points_of_other_roles(role: str) -> None:
    subject = dense({"pools": "any"})
    plan = plan_for(subject, ALONE, PREFILL, DECODE)
    assert broken(subject, plan) == set()
    own = {"mixed": 0, "prefill": 1, "decode": 2}
    for other, pool in own.items():
        if other != role:
            found = broken(subject, spoiled(plan, {f"pools.{pool}.role": role}))
            assert "operating_point" in found


@pytest.mark.parametrize(
    ("changes", "sketches", "holds"),
    [
        ({}, (ALONE,), True),
        (APART, (PREFILL, DECODE), True),
        ({"pools": "any"}, (ALONE,), True),
        ({"pools": "any"}, (ALONE, PREFILL, DECODE), True),
        # one side is missing
        (APART, (PREFILL,), False),
        (APART, (DECODE,), False),
        ({"pools": "any"}, (ALONE, DECODE), False),
        # roles that are not asked for
        ({}, (PREFILL, DECODE), False),
        ({}, (ALONE, PREFILL, DECODE), False),
        (APART, (ALONE,), False),
        (APART, (ALONE, PREFILL, DECODE), False),
        # a request's end to end is known of mixed replicas alone, and so is survival
        ({"pools": "any", "slo": [{"metric": "e2e", "limit_ms": 1e9}]},
         (PREFILL, DECODE), False),
        ({"pools": "any", "slo": [{"metric": "e2e", "limit_ms": 1e9}]}, (ALONE,), True),
        ({**APART, "limits.survive": [{"gpus": 1}]}, (PREFILL, DECODE), False),
    ],
)  # fmt: skip
def test_pools_complete(
    changes: Changes, sketches: tuple[Sketch, ...], holds: bool
) -> None:
    subject = dense(changes)
    found = broken(subject, plan_for(subject, *sketches))
    assert found == (set() if holds else {"pools_complete"})


@pytest.mark.parametrize(
    ("metric", "value_ns"),
    [("tpot", 156_862_000), ("itl", 156_862_000), ("prefill", 1_874_550_000),
     ("ttft", 2_824_645_000)],
)  # fmt: skip
def test_limits_hold_for_their_roles(metric: str, value_ns: int) -> None:
    # the other role's figure, a period of 1.9 s or a TTFT of 0, is none of theirs
    for limit, rules in ((value_ns, set()), (value_ns - 1, {f"{metric}_limit"})):
        slo = [{"metric": metric, "limit_ms": limit / 1e6}]
        report = check(dense({**APART, "slo": slo}), PLAN)
        assert set(report.broken()) == rules
        assert sum(row.rule == f"{metric}_limit" for row in report.rows) == 1


def test_batch_limit_counts_the_prompts_of_a_prefill_replica() -> None:
    changes = {**APART, "workload.max_batch": 8}
    large = Sketch(PREFILL.stages, 1, 1, 401, role="prefill")
    subject = dense(changes)
    assert broken(subject, plan_for(subject, PREFILL, DECODE)) == set()
    # M = 2·⌈401/100⌉
    assert broken(subject, plan_for(subject, large, DECODE)) == {"batch_limit"}


@pytest.mark.parametrize("where", ["fix", "grid"])
def test_only_what_is_chosen_is_held(where: str) -> None:
    def asked(name: str, value: int) -> dict[str, Any]:
        return {**APART, f"{where}.{name}": value if where == "fix" else [value]}

    # M = 2 of the prefill replica and chunk 0 of the decode replica follow
    for name, good in (("sequences", 8), ("prefill_chunk_tokens", 100)):
        assert broken(dense(asked(name, good)), PLAN) == set()
        assert broken(dense(asked(name, good + 1)), PLAN) == {where}
    assert broken(dense(asked("micro_batches", 2)), PLAN) == {where}


def test_rate_of_pools_against_the_requests() -> None:
    # 51 tokens/s of decode for answers of 200
    for rate, rules in ((51.0, set()), (51.001, {"request_rate"})):
        subject = dense({**APART, "workload.request_rate_per_s": rate / 200})
        assert broken(subject, PLAN) == rules


def test_lying_stage_times_of_a_prefill_replica() -> None:
    short = spoiled(PLAN, {f"{P}.stages.0.decode_time_ns": 1000})
    assert broken(SUBJECT, restated(SUBJECT, short)) == {"decode_time"}


def test_sequences_of_a_rank_in_the_cache() -> None:
    # two attention ranks hold R(⌈2/2⌉) = 100 tokens each, one context of 150 at least
    subject = mixture(
        {
            **APART,
            "workload.input_tokens": {"constant": 100},
            "workload.max_context_tokens": 150,
        }
    )
    stages = [(0, 2, "big", "a-0", range(4))]
    sketch = Sketch(stages, 1, 1, 100, shape=ONE_ISLAND, slots=3, role="prefill")
    assert replica_of(subject, sketch).stages[0].memory.kv_cache == 2 * 150 * 8


def test_requests_of_a_period() -> None:
    # 30 of 100 prompt tokens with 200 of output
    replica = replica_of(SUBJECT, Sketch(GPU, 1, 1, 30, role="prefill"))
    period = replica.law.tpot_ns
    rate = Fraction(30 * 200, 100) * 10**12 / period
    assert replica.law.rate_mtok_per_s == rate.numerator // rate.denominator
