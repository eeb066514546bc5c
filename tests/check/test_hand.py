"""Figures of the cost model worked out on paper from docs/cost-model.md."""

from __future__ import annotations

from fractions import Fraction

import pytest
from tests.check.builders import BIG, Sketch, instance, plan_for

from shardwright.check import Report, check

# Llama-3-70B: h = 8192, V = 128256 = 64·2004, 64 heads, 8 KV heads, D = 128,
# I = 28672, 80 layers, bf16. TP2 PP4 of 20 layers on one island of 8 GPUs, M = 32,
# q = 4, chunk = 512, prompts of 1000 tokens, answers of 200.
LLAMA = {
    "model": {
        "name": "llama-3-70b",
        "hidden": 8192,
        "vocabulary": 128256,
        "tied_embeddings": False,
        "max_position_tokens": 8192,
        "final_norm_width": 8192,
        "layer_kinds": [
            {
                "name": "block",
                "attention": {"heads": 64, "kv_heads": 8, "head_dim": 128},
                "ffn": {"intermediate": 28672},
                "norm_width": 16384,
            }
        ],
        "layers": ["block"] * 80,
    },
    "cluster.gpu_types": {"big": {**BIG, "island_gpus": 8}},
    "cluster.nodes": [{"name": "a", "gpu": "big", "gpus": 8, "count": 2}],
    "limits": {"memory_fraction": 0.85, "reserve_per_gpu": "500 MB"},
}
FOUR_STAGES = Sketch(
    [(20 * s, 20 * s + 20, "big", "a-0", (2 * s, 2 * s + 1)) for s in range(4)],
    sequences=32,
    micro_batches=4,
)


@pytest.fixture(scope="module")
def llama() -> Report:
    subject = instance(LLAMA)
    report = check(subject, plan_for(subject, FOUR_STAGES))
    report.raise_if_bad()
    return report


def test_operating_point(llama: Report) -> None:
    # m = ⌈32/4⌉, c = ⌈8·1000/200⌉, K = ⌈1000/512⌉, s = ⌈1000/2⌉
    point = llama.figures.replicas[0].point
    assert point.micro_batch_sequences == 8
    assert point.prompt_tokens == 40
    assert point.chunk_count == 2
    assert point.prefill_tokens == 500


def test_weights(llama: Report) -> None:
    # Per rank H_t = 32, K_t = 4, I_t = 14336:
    #   P = 8192·128·(2·32 + 2·4) + 3·8192·14336 = 427,819,008
    #   layer = 2·427,819,008 + 2·16,384 = 855,670,784;   20 layers = 17,113,415,680
    # Embedding or head: 64,128·8192·2 = 1,050,673,152; final norm 2·8192 = 16,384.
    weights = [s.memory.weights for s in llama.figures.replicas[0].stages]
    inner, edge = 17_113_415_680, 1_050_673_152
    assert weights == [inner + edge, inner, inner, inner + edge + 16_384]


def test_kv_cache(llama: Report) -> None:
    # E_kv = 1000 + 200²/400 = 1100; V_kv = 200²/12 = 10,000/3.
    # R = ⌈32·1100 + 2.33·√(32·10,000/3)⌉ = ⌈35,200 + 760.97⌉ = 35,961
    # 20 layers·35,961·2·4·128·2 bytes = 1,472,962,560
    for stage in llama.figures.replicas[0].stages:
        assert stage.memory.kv_cache == 1_472_962_560


def test_kv_cache_at_full_context() -> None:
    # R = 32·4096 = 131,072; 20·131,072·2·4·128·2 = 5,368,709,120
    subject = instance({**LLAMA, "workload.kv_reserve": "max_context"})
    report = check(subject, plan_for(subject, FOUR_STAGES))
    assert report.figures.replicas[0].stages[1].memory.kv_cache == 5_368_709_120


def test_other_memory(llama: Report) -> None:
    # Activations: (8 + 512)·2·(3·8192 + max((32 + 8)·128, 2·14,336)) = 55,377,920;
    # the last stage adds (8 + ⌈512/1000⌉)·128,256·4 = 4,617,216.
    # Communication: 2·100 MB + 520·8192·2 = 208,519,680. Framework 1 GB + 500 MB.
    memory = [s.memory for s in llama.figures.replicas[0].stages]
    assert [m.activations for m in memory] == [55_377_920] * 3 + [59_995_136]
    assert {m.communication for m in memory} == {208_519_680}
    assert {m.framework for m in memory} == {1_500_000_000}
    assert llama.figures.replicas[0].stages[0].memory_cap_bytes == 68_000_000_000


def test_decode_times(llama: Report) -> None:
    # ŝ = x̂ = 1000, φ = 40/1000: one of 25 iterations has 1008 tokens, the others 8. ns:
    #   linear       855,638,016/1e12 = 855,638.016;  2·P·1008/5e14 = 1,724,966.240256
    #   decode att.  8·1100·2·4·128·2/5e11                          =    36,044.8
    #   prefill att. 0;                 4·1000·500·32·128/2e14      =    40,960
    #   2 all-reduces 2·(10,000 + 131,072/5e10) = 25,242.88;             680,602.88
    #   overhead                                                    =     2,000
    #   918,925.696 and 2,484,573.920256: ⌈918,925.696 + 1,565,648.224256/25⌉ = 981,552
    #   20 layers = 19,631,040; collectives ⌈51,457.28⌉ of each
    # Stage constant 50,000 + 8·1,000 = 58,000. The rest is linear in tokens, n = 48 in
    # the mean: the first stage adds 786.432 + 25,728.64 -> ⌈84,515.072⌉; the last, 8.04
    # rows, adds max(16,894.8…, 1,050,673.152) (18,912.9… for 9 rows) and
    # 10,000 + ½·8.04·128,256·2/5e10 = 30,623.5648 -> ⌈1,139,296.7168⌉.
    stages = llama.figures.replicas[0].stages
    layers = 20 * 981_552
    assert [s.decode.total_ns for s in stages] == [
        layers + 84_516,
        layers + 58_000,
        layers + 58_000,
        layers + 1_139_297,
    ]
    collective = 20 * 51_458
    assert [s.decode.communication_ns for s in stages] == [
        collective + 25_729,
        collective,
        collective,
        collective + 30_624,
    ]
    assert [s.decode.communication_terms for s in stages] == [21, 20, 20, 21]


def test_prefill_times(llama: Report) -> None:
    # n = 8 + 500 = 508; ns:
    #   linear 2·P·508/5e14 = 869,328.224256 (now above 855,638.016)
    #   decode att. 36,044.8; prefill att. 4·500·500·32·128/2e14 = 20,480
    #   2·(10,000 + 8,323,072/5e10) = 352,922.88; overhead 2,000
    #   layer ⌈1,280,775.904256⌉
    # First: 58,000 + 8,323.072 + 176,461.44 -> 242,785. Last, r = 8.5:
    # 58,000 + 1,050,673.152 + 10,000 + ½·8.5·128,256·2/5e10 = 21,803.52 -> 1,140,477.
    layers = 20 * 1_280_776
    assert [s.prefill.total_ns for s in llama.figures.replicas[0].stages] == [
        layers + 242_785,
        layers + 58_000,
        layers + 58_000,
        layers + 1_140_477,
    ]


def test_law(llama: Report) -> None:
    # η: 5,000 + 2·48·8192·2/5e10 = 36,457.28; θ: 5,000 + 2·508·8192·2/5e10 = 337,922.88
    # T = 20,770,337; S = 79,863,973 + 3·36,458 + 15,000 = 79,988,347
    # Θ = max(4·T, S) = 83,081,348; rate = ⌊32e12/Θ⌋ = 385,164
    # Π = 25,858,305 + 2·25,673,520 + 26,755,997 + 3·337,923 + 1·26,755,997
    # TTFT = ⌈Θ/8⌉ + Π; e2e = TTFT + 199·Θ
    replica = llama.figures.replicas[0]
    assert replica.hops.decode_ns == (36_458,) * 3
    assert replica.hops.prefill_ns == (337_923,) * 3
    assert replica.hops.return_ns == 15_000
    assert replica.law == replica.stated
    assert replica.law.slowest_ns == 20_770_337
    assert replica.law.pass_ns == 79_988_347
    assert replica.law.tpot_ns == 83_081_348
    assert replica.law.rate_mtok_per_s == 385_164
    assert replica.law.prefill_ns == 131_731_108
    assert replica.law.ttft_ns == 10_385_169 + 131_731_108
    assert replica.law.e2e_ns == 142_116_277 + 199 * 83_081_348


def test_shares(llama: Report) -> None:
    # Collectives 4·20·51,458 + 25,729 + 30,624; hops 109,374; return 15,000.
    # Equal tp: imbalance = 4·max/Σ − 1; bubble = 1 − 4·Σ τ·2/(8·Θ).
    replica = llama.figures.replicas[0]
    assert replica.communication_ns() == 4_116_640 + 56_353 + 124_374
    assert replica.communication_share() == Fraction(4_297_367, 79_988_347)
    assert replica.compute_imbalance() == Fraction(4 * 20_770_337, 79_863_973) - 1
    assert replica.bubble() == 1 - Fraction(79_863_973, 83_081_348)
    assert replica.flush_bubble() == Fraction(3, 7)
    total = [s.memory.total() for s in replica.stages]
    assert replica.memory_imbalance() == Fraction(4 * max(total), sum(total)) - 1


def test_fleet_totals(llama: Report) -> None:
    # 8 GPUs at 2.5 USD; 385.164 tokens/s over 200 tokens a request.
    figures = llama.figures
    assert (figures.gpus_used, figures.gpus_available) == (8, 16)
    assert figures.cost_micro_usd_per_hour == 20_000_000
    assert figures.requests_per_s() == Fraction(385_164, 200_000)


def test_hop_between_islands() -> None:
    # Islands of 4 on one node still meet over the network:
    # 15,000 + 2·48·8192·2/2.5e10 = 77,914.56 ns at the second hop.
    subject = instance({**LLAMA, "cluster.gpu_types.big.island_gpus": 4})
    report = check(subject, plan_for(subject, FOUR_STAGES))
    assert report.figures.replicas[0].hops.decode_ns == (36_458, 77_915, 36_458)


def test_hop_between_islands_over_slow_links() -> None:
    # Data leaves over the GPU's own links first: 5e9 B/s of them, and the hop's own
    # latency above the network's: 20,000 + 2·48·8192·2/5e9 = 334,572.8 ns.
    changes = {
        "cluster.gpu_types.big.island_gpus": 4,
        "cluster.gpu_types.big.link_gbyte_per_s": 10,
        "cluster.gpu_types.big.calibration.hop_latency_us": 20,
    }
    subject = instance({**LLAMA, **changes})
    report = check(subject, plan_for(subject, FOUR_STAGES))
    assert report.figures.replicas[0].hops.decode_ns == (334_573,) * 3
