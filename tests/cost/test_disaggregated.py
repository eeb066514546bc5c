"""Disaggregated stages: the law against a simulation, hand numbers, exact memory."""

from __future__ import annotations

from math import ceil
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from shardwright.cost.disaggregated import (
    DisaggregatedClock,
    Turn,
    attention_part,
    expert_gpu_bytes,
    expert_part,
)
from shardwright.cost.lengths import RequestMix
from shardwright.cost.memory import ONLY
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.times import Load, StageClock
from shardwright.ingest import gpu, model
from shardwright.schema.model import ModelSpec
from shardwright.schema.workload import Limits, Precision, Workload

WORKLOAD = """{"input_tokens": {"constant": 1024}, "output_tokens": {"constant": 256},
               "max_context_tokens": 4096}"""
MIX = RequestMix.of(Workload.model_validate_json(WORKLOAD))
QWEN = model("Qwen/Qwen3-30B-A3B")
DEEPSEEK = model("deepseek-ai/DeepSeek-V3")
BF16 = Precision()
SHAPE = StageShape(2, 2, 1, 4, expert_gpus=4, ping_pong=2)
"""Attention TP2 x DP2 on four GPUs, experts on four others."""

Station = tuple[int, int, int, int]
"""Attention, dispatch, experts, combine; ns."""


def ranks(spec: ModelSpec, shape: StageShape) -> tuple[RankLayer, ...]:
    return tuple(RankLayer.of(spec, k, shape, BF16) for k in spec.layer_kinds)


def clock(
    spec: ModelSpec = QWEN, shape: StageShape = SHAPE, name: str = "H100-SXM"
) -> DisaggregatedClock:
    return DisaggregatedClock(spec, BF16, MIX, gpu(name), shape, ranks(spec, shape))


def array(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def load(m: float, x: float, shape: StageShape = SHAPE, chunk: float = 1024) -> Load:
    return Load.balanced(array(m), array(x), array(chunk), shape.attn_dp)


def ns(seconds: NDArray[np.float64]) -> int:
    return ceil(float(seconds[0]) * 1e9)


# -- the law ---------------------------------------------------------------------


def makespan(layers: list[Station], parts: int) -> int:
    """Parts through all stations in order; every station keeps the parts' order."""
    free = [0] * 4
    left = [0] * parts
    for stations in layers:
        for i in range(parts):
            for k, time in enumerate(stations):
                left[i] = max(left[i], free[k]) + time
                free[k] = left[i]
    return max(left)


def turn(stations: Station) -> Turn:
    a, out, experts, back = (array(x) for x in stations)
    return Turn(a, np.zeros_like(a), out, experts, back)


def law(layers: list[Station], parts: int) -> int:
    longest = turn(layers[0])
    for stations in layers[1:]:
        longest = longest.or_longer(turn(stations))
    periods = sum(int(turn(s).period(parts, longest)[0]) for s in layers)
    return periods + int(longest.fill(parts)[0])


def draw(rng: Random) -> Station:
    if rng.random() < 0.25:
        return rng.randint(1, 40), 0, 0, 0  # a dense layer
    way = rng.randint(0, 20)
    return rng.randint(0, 20), way, rng.randint(0, 20), way


def test_equal_layers_take_exactly_what_a_simulation_takes() -> None:
    rng = Random(1)
    for _ in range(600):
        layers = [draw(rng)] * rng.randint(1, 9)
        parts = rng.randint(2, 4)
        assert law(layers, parts) == makespan(layers, parts)


def test_differing_layers_never_take_longer_than_the_law() -> None:
    rng, tight = Random(2), 0
    for _ in range(1000):
        kinds = [draw(rng) for _ in range(rng.randint(1, 3))]
        layers = [rng.choice(kinds) for _ in range(rng.randint(1, 14))]
        parts = rng.randint(2, 4)
        simulated, claimed = makespan(layers, parts), law(layers, parts)
        assert simulated <= claimed
        tight += simulated == claimed
    assert tight > 100


def test_a_layer_is_the_law_of_its_stations() -> None:
    for m, x in ((64, 0), (512, 2048), (4096, 16384)):
        one, on = clock(), load(m, x)
        (rank,) = one.ranks
        t = one.turn(rank, on)
        period, exposed = one.layer(rank, on)
        times = [float(v[0]) for v in (t.attention, t.dispatch, t.experts, t.combine)]
        whole = max(2 * max(times), sum(times))
        computed = times[0] - float(t.collectives[0])
        silent = max(2 * max(computed, times[2]), computed + times[2])
        assert on.share is not None
        if on.share[0] == 1:
            assert int(period[0]) == ceil(whole * 1e9)
            assert abs(int(exposed[0]) - (whole - silent) * 1e9) <= 1
        assert 0 <= int(exposed[0]) < int(period[0])


def test_a_balanced_iteration_is_the_mean_of_whole_layer_times() -> None:
    """256 of 2 x 1024 prompt tokens: seven of eight iterations carry none."""
    one, on = clock(), load(512, 256)
    (rank,) = one.ranks
    assert on.share is not None and float(on.share[0]) == 0.125
    alone = Load(array(256), array(0), array(512), array(512))
    full = Load(array(256), array(1024), array(2560), array(512))
    for whole, parts in (
        (one.layer(rank, on), [one.layer(rank, x) for x in (alone, full)]),
        (
            one.stage_constant(ONLY, on),
            [one.stage_constant(ONLY, x) for x in (alone, full)],
        ),
    ):
        for mean, rest, most in zip(whole, *parts, strict=True):
            assert int(mean[0]) == pytest.approx(
                0.875 * int(rest[0]) + 0.125 * int(most[0]), abs=1.01
            )
            assert int(rest[0]) < int(most[0])


def test_the_engine_pays_its_overheads_on_both_groups() -> None:
    plain, on = clock(), load(64, 0)
    calibration = gpu("H100-SXM").calibration
    engine = DisaggregatedClock(
        QWEN, BF16, MIX, gpu("H100-SXM"), SHAPE, plain.ranks, "sglang"
    )
    own, other = (calibration.engine(name) for name in ("generic", "sglang"))
    (rank,) = plain.ranks
    # no prompts, few tokens: what differs is latency, not arithmetic
    before, after = (c.turn(rank, on.without_prompts) for c in (plain, engine))
    factor = calibration.overhead_factor * 1e-6
    layer = factor * (other.layer_overhead_us - own.layer_overhead_us)
    experts = layer + factor * (other.expert_overhead_us - own.expert_overhead_us)
    if own.compute_factor == other.compute_factor:
        assert float((after.attention - before.attention)[0]) == pytest.approx(layer)
        assert float((after.experts - before.experts)[0]) == pytest.approx(experts)
    assert float((after.dispatch - before.dispatch)[0]) == 0


def test_links_are_hidden_once_there_is_enough_to_compute() -> None:
    shape = StageShape(1, 4, 1, 4, expert_gpus=4, ping_pong=3)
    one = clock(shape=shape)
    (rank,) = one.ranks
    exposed = one.layer(rank, load(4096, 32768, shape))[1]
    assert int(exposed[0]) == 0


# -- hand numbers ----------------------------------------------------------------


def test_stations_by_hand() -> None:
    """512 sequences and 2048 prompt tokens, half of them on each of two ranks, in two
    parts of 128 + 512 tokens; experts see 1280."""
    one, on = clock(), load(512, 2048)
    (rank,) = one.ranks
    part = Load(array(128), array(512), array(1280), array(256))
    alone = StageClock(QWEN, BF16, MIX, gpu("H100-SXM"), StageShape(2, 2, 4, 1))
    expected = alone.layer(attention_part(rank), part)
    t, own = one.turn(rank, on), gpu("H100-SXM").calibration
    costs = own.engine("generic")
    assert ns(t.attention) == int(expected[0][0])
    assert ns(t.collectives) == int(expected[1][0])
    start, link = own.allreduce_latency_us, 450e9 * own.link_efficiency
    assert ns(t.collectives) == ceil((start[2] * 1e-6 + 640 * 4096 / link) * 1e9)
    met = 1 - (1 - 1 / 4) ** 8
    way = start[8] * 1e-6 + 1280 * met * 4096 / link
    assert ns(t.dispatch) == ns(t.combine) == ceil(way * 1e9)
    size, awake = 3 * 2048 * 768, 32 * (1 - (1 - 8 / 128) ** 1280)
    rows = max(1280 * 8 / 4, awake * own.expert_tile_rows)
    read = awake * size * 2 / (3350e9 * own.hbm_efficiency)
    sustained = 989e12 * own.matmul_efficiency["bf16"] * costs.compute_factor
    compute, p = 2 * size * rows / sustained, own.roofline_exponent
    joined = (compute**p + read**p) ** (1 / p) if p else max(compute, read)
    overhead = costs.layer_overhead_us + costs.expert_overhead_us
    total = joined + own.overhead_factor * overhead * 1e-6
    assert float(t.experts[0]) == pytest.approx(total, rel=1e-12)


def test_the_stage_constant_is_the_attention_ranks_and_the_fill() -> None:
    one, on = clock(), load(512, 2048)
    alone = StageClock(QWEN, BF16, MIX, gpu("H100-SXM"), StageShape(2, 2, 4, 1))
    total, comm = one.stage_constant(ONLY, on)
    base, base_comm = alone.stage_constant(ONLY, on)
    fill = one.turn(one.ranks[0], on).fill(2)
    assert abs(int(total[0]) - int(base[0]) - float(fill[0]) * 1e9) <= 1
    assert int(comm[0]) == int(base_comm[0])


def test_dense_layers_have_attention_gpus_alone() -> None:
    shape = StageShape(1, 4, 1, 4, expert_gpus=4, ping_pong=2)
    one, on = clock(DEEPSEEK, shape, "H200"), load(512, 2048, shape, 512)
    dense = next(r for r in one.ranks if r.experts is None)
    t = one.turn(dense, on)
    assert float(t.experts[0]) == float(t.dispatch[0]) == 0
    assert expert_part(dense).weight_bytes(BF16) == 0
    longest = one.longest(on)
    assert int(one.layer(dense, on)[0][0]) == max(
        2 * ns(t.attention) - 1, ns(longest.loop)
    )


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_lone_chunk_lies_on_one_rank_in_parts(parts: int) -> None:
    shape = StageShape(1, 4, 1, 4, expert_gpus=4, ping_pong=parts)
    part = clock(shape=shape).part(Load.lone_chunk(array(10), array(4096), 4))
    assert part.sequences.tolist() == [ceil(3 / parts)]
    assert part.prompts.tolist() == [ceil(4096 / parts)]
    assert part.tokens.tolist() == [ceil(4106 / parts)]


# -- memory ----------------------------------------------------------------------


@pytest.mark.parametrize("spec", [QWEN, DEEPSEEK], ids=["qwen", "deepseek"])
def test_both_sorts_of_gpu_hold_the_layer_between_them(spec: ModelSpec) -> None:
    for rank in ranks(spec, SHAPE):
        whole = rank.weight_bytes(BF16)
        parts = (attention_part(rank), expert_part(rank))
        assert sum(part.weight_bytes(BF16) for part in parts) == whole
        assert attention_part(rank).kv_bytes(BF16, 100, 1) == rank.kv_bytes(
            BF16, 100, 1
        )
        assert expert_part(rank).kv_bytes(BF16, 100, 1) == 0


def test_buffers_of_an_expert_gpu_by_hand() -> None:
    """1000 tokens x 8 experts over four GPUs of 32 of 128 experts each."""
    found = expert_gpu_bytes(QWEN, BF16, gpu("H100-SXM"), Limits(), SHAPE, 1000)
    assert found.activations == 2000 * 2 * (2 * 2048 + 2 * 768)
    communicator = gpu("H100-SXM").calibration.communicator_memory_bytes
    assert found.communication == communicator + 2 * 2000 * 2048 * 2
    uneven = StageShape(1, 5, 1, 3, expert_gpus=3, ping_pong=2)
    found = expert_gpu_bytes(QWEN, BF16, gpu("H100-SXM"), Limits(), uneven, 1000)
    pairs = -(-1000 * 8 * 43 // 128)
    assert found.activations == pairs * 2 * (2 * 2048 + 2 * 768)
