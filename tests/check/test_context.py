"""Context groups and copies of experts: docs/cost-model.md, section 14, on paper."""

from __future__ import annotations

from typing import Any

import pytest
from tests.check.builders import Changes, Sketch, instance, plan_for, spoiled
from tests.check.mixtures import mixture, report_of, sketch_of, stage_of

from shardwright.check import check

# four GPUs: two ranks of two that share sequences, experts over all
GROUP = {"tp": 2, "cp": 2, "moe_tp": 1, "ep": 4}
COPIES = {"tp": 2, "cp": 2, "moe_tp": 1, "ep": 2, "moe_dp": 2}
SGLANG: dict[str, Any] = {"engine": {"name": "sglang"}}
AMD = {"cluster.gpu_types.big.vendor": "AMD"}
LATENT = {
    "model.layer_kinds.0.attention": {
        "type": "mla", "heads": 4, "q_lora_rank": 4, "kv_lora_rank": 6,
        "qk_nope_head_dim": 2, "qk_rope_head_dim": 2, "v_head_dim": 2,
    }
}  # fmt: skip


def test_cache_is_cut_over_the_group_or_whole_on_each_rank() -> None:
    # R(8) = ⌈8·1100 + 2.33·√(8·10,000/3)⌉ = ⌈8800 + 380.48…⌉ = 9181; 8 B per token
    stage = stage_of(mixture(), sketch_of(GROUP, 3))
    assert stage.memory.kv_cache == 2 * 4591 * 8
    stage = stage_of(mixture(SGLANG), sketch_of(GROUP, 3))
    assert stage.memory.kv_cache == 2 * 9181 * 8


def test_a_window_is_cut_as_well() -> None:
    subject = mixture({"model.layer_kinds.0.attention.window_tokens": 63})
    held = stage_of(subject, sketch_of({**GROUP, "cp": 1, "tp": 4}, 3))
    assert held.memory.kv_cache == 2 * 8 * 63 * 8
    assert stage_of(subject, sketch_of(GROUP, 3)).memory.kv_cache == 2 * 4 * 63 * 8


def test_other_memory() -> None:
    # Weights are those of tp 2: the group copies them (test_mixtures works them out).
    # 8 + ⌈100/2⌉ = 58 tokens of width 16 + 24; logits 8 + ⌈100/1000⌉ rows. Buffers of
    # 58 tokens, two copies sent besides; 4 values of 100 tokens gathered twice, and
    # their hidden states; communicators of the stage and of the group.
    memory = stage_of(mixture(), sketch_of(GROUP, 3)).memory
    assert memory.weights == 2 * 1144 + 2 * 1024 + 16
    assert memory.activations == 58 * 2 * 40 + 9 * 128 * 4
    context = 2 * 100 * 4 * 2 + 100 * 8 * 2
    assert memory.communication == 2 * 10**8 + 58 * 16 * 3 + context
    # copies: one rank each, so that no token is sent; the cache is not gathered
    memory = stage_of(mixture(SGLANG), sketch_of(COPIES, 5)).memory
    context = 100 * 4 * 2 + 100 * 8 * 2
    assert memory.communication == 2 * 10**8 + 58 * 16 + context


# m = 8, c = 40, ŝ = 1000: one prompt in 25 iterations. A rank has 8 sequences and 500
# of its tokens, n_r = 28 in the mean; the experts see 16 and 1016 rows, 56. µs:
#   matrices     2·248·28/5e5                                     =  27,776
#   decode att.  8·(1100/2)·4·2/5e5                               =  70,400
#   prefill att. 2·500·500·2·4/2e5/25                             = 800,000
#   all-reduce   10 + 28·16/5e5 over 2                            =     906
#   prompt KV    (10 + ½·1000·4·2/5e5)/25; nothing precedes ŝ = L =     320.4
#   merging      10 + ½·2·8·2·4/5e5 and 10 + 8·2·2·2/5e5          =     276
#   overhead                                                      =       2
COMMON = 27_776_000 + 800_000_000 + 906_000 + 320_400 + 2_000
# 50 + 8; embedding 448 and all-reduce 906; 8.04 rows: head 16,465.92, gather 2,068.24;
# hidden states (10 + ½·1000·16/5e5)/25
EDGES = 906_000 + 2_068_240 + 640_400
CONSTANT = 58_000 + 448_000 + 16_465_920 + EDGES


def test_decode_time() -> None:
    # experts 2·96·(56·2/4)·1.2/5e5; exchange 2·(12 + (56/4)·16·2·¾/5e5)
    stage = stage_of(mixture(), sketch_of(GROUP, 3))
    layer = COMMON + 70_400_000 + 276_000 + 12_902_400 + 1_368_000
    assert stage.decode.total_ns == 2 * layer + CONSTANT
    collectives = 906_000 + 320_400 + 276_000 + 1_368_000
    assert stage.decode.communication_ns == 2 * collectives + EDGES


def test_a_group_that_keeps_the_whole_cache() -> None:
    # attention reads all of it, nothing is merged; twelve slots for ten experts: β = 1
    stage = stage_of(mixture(SGLANG), sketch_of(GROUP, 3))
    layer = COMMON + 140_800_000 + 10_752_000 + 1_368_000
    assert stage.decode.total_ns == 2 * layer + CONSTANT


def test_copies_of_experts() -> None:
    # each copy has the 28 rows of its rank, on 2 GPUs of 5 slots: 2·96·(28·2/2)/5e5,
    # and puts them together by an all-reduce over 2
    stage = stage_of(mixture(SGLANG), sketch_of(COPIES, 5))
    layer = COMMON + 140_800_000 + 10_752_000 + 906_000
    assert stage.decode.total_ns == 2 * layer + CONSTANT


def test_context_of_a_chunk_is_gathered_where_the_cache_is_cut() -> None:
    # s = 100: A − 50 = 450 tokens precede in the mean; 550·4·2 B, or 100·4·2 B alone
    whole = stage_of(mixture(SGLANG), sketch_of(GROUP, 3)).prefill.communication_ns
    cut = stage_of(mixture(), sketch_of(GROUP, 3)).prefill.communication_ns
    preceding = round(450 * 4 * 2 / 2 / 5e5 * 1e9)
    assert cut - whole == 2 * (preceding + 276_000)


def test_latent_parts_are_merged_in_the_latent_space() -> None:
    # cached 6 + 2 values on every rank; partial outputs of 2 heads of 6 values
    subject = mixture(LATENT)
    stage = stage_of(subject, sketch_of(GROUP, 3))
    assert stage.memory.kv_cache == 2 * 4591 * 16
    outputs, sums = 8 * 2 * 6 * 2, 2 * 8 * 2 * 4
    gathered = (10 + (1000 * 8 * 2 / 2) / 0.5) / 25
    merged = 20 + outputs / 0.5 + sums / 2 / 0.5
    collectives = 906 + gathered + merged + 1_368
    expected = 2 * round(collectives * 1000) + EDGES
    assert stage.decode.communication_ns == expected


def test_several_copies_of_a_group_exchange_within_their_part() -> None:
    # ep 1, two copies over four ranks of one GPU: N = 2·8 and 2·8 + min(2·250, 1000)
    shape = {"tp": 1, "cp": 4, "moe_tp": 2, "ep": 1, "moe_dp": 2}
    stage = stage_of(mixture(), sketch_of(shape, 10))
    rows = 16 + 500 / 25
    exchange = 2 * (10 + rows * 16 / 2 / 0.5)
    gathered = (12 + (1000 * 8 * 2 * 3 / 4) / 0.5) / 25
    merged = 24 + 4 * 8 * 4 * 4 * 3 / 4 / 0.5 + 2 * 3 / 4 * (8 * 4 * 2 * 2) / 0.5
    states = (12 + (1000 * 16 * 3 / 4) / 0.5) / 25
    expected = 2 * round((exchange + gathered + merged) * 1000) + round(states * 1000)
    assert stage.decode.communication_ns == expected


@pytest.mark.parametrize(
    ("engine", "changes", "shape", "slots", "rules"),
    [
        ("generic", {}, GROUP, 3, ()),
        ("sglang", {}, GROUP, 3, ()),
        ("vllm", LATENT, GROUP, 3, ()),
        ("vllm", {}, GROUP, 3, ("context_parallel",)),
        ("sglang", AMD, GROUP, 3, ("context_parallel",)),
        ("trtllm", {}, {**GROUP, "tp": 4, "cp": 1}, 3, ()),
        ("trtllm", {}, GROUP, 3, ("context_parallel",)),
        # copies: SGLang's follow the group, and are whole or in slices
        ("sglang", {}, COPIES, 5, ()),
        ("generic", {}, COPIES, 5, ()),
        ("vllm", LATENT, COPIES, 5, ("engine_shape",)),
        ("trtllm", {}, {**COPIES, "cp": 1, "attn_dp": 2}, 5, ("engine_shape",)),
        ("sglang", {}, {**COPIES, "cp": 1, "attn_dp": 2}, 5, ("engine_shape",)),
        ("generic", {}, {**COPIES, "cp": 1, "attn_dp": 2}, 5, ()),
        ("sglang", {}, {**GROUP, "tp": 1, "cp": 4, "ep": 2, "moe_dp": 2}, 5,
         ("engine_shape",)),
        # one attention rank cannot be served by two copies
        ("generic", {}, {**COPIES, "tp": 4, "cp": 1}, 5, ("shape_product",)),
        ("generic", {}, {**GROUP, "cp": 4}, 3, ("shape_product",)),
    ],
)  # fmt: skip
def test_rules_of_engines(
    engine: str, changes: Changes, shape: Changes, slots: int, rules: tuple[str, ...]
) -> None:
    subject = mixture({**changes, "engine": {"name": engine}})
    found = report_of(subject, sketch_of(shape, slots)).broken()
    assert set(found) == set(rules)


def test_copies_of_sglang_stand_alone() -> None:
    changes = {"model.layers": ["block"] * 2, "cluster.nodes.0.gpus": 8}
    changes |= {"cluster.gpu_types.big.island_gpus": 8}
    places = [(0, 1, "big", "a-0", range(4)), (1, 2, "big", "a-0", range(4, 8))]
    pipeline = Sketch(places, 8, 2, 100, shape=dict(COPIES), slots=5)
    assert report_of(mixture({**changes, **SGLANG}), pipeline).broken() == (
        "engine_shape",
    )
    assert report_of(mixture(changes), pipeline).broken() == ()


def test_a_group_lies_on_one_island() -> None:
    shape = {"tp": 2, "cp": 4, "moe_tp": 1, "ep": 8}
    found = report_of(mixture(), sketch_of(shape, 2, "a-0 a-1")).broken()
    assert "stage_inside_island" in found


def test_fixed_and_listed_degrees() -> None:
    sketch = sketch_of(COPIES, 5)
    assert report_of(mixture({"fix": {"cp": 2, "moe_dp": 2}}), sketch).broken() == ()
    for fix in ({"cp": 4}, {"moe_dp": 1}):
        assert report_of(mixture({"fix": fix}), sketch).broken() == ("fix",)
    for grid in ({"context_parallel": [1, 4]}, {"moe_dp": [1]}):
        assert report_of(mixture({"grid": grid}), sketch).broken() == ("grid",)
    both = {"fix": {"cp": 2}, "grid": {"context_parallel": [1]}}
    assert report_of(mixture(both), sketch).broken() == ()


def test_a_dense_group_copies_its_weights() -> None:
    places = [(0, 8, "big", "a-0", range(4))]
    shape = {"tp": 2, "cp": 2, "moe_tp": 2, "moe_dp": 2}
    sketch = Sketch(places, 16, 1, 512, shape=shape)
    subject = instance({"engine": {"name": "generic"}})
    plan = plan_for(subject, sketch)
    check(subject, plan).raise_if_bad()
    stage = "pools.0.replicas.0.stages.0.shape"
    other = spoiled(plan, {f"{stage}.moe_tp": 4, f"{stage}.moe_dp": 1})
    assert check(subject, other).broken() == ("shape_product",)
