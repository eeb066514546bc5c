"""Iteration times: hand numbers, and how they move with m, x and tp."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shardwright.cost.lengths import RequestMix
from shardwright.cost.memory import FIRST, LAST, MIDDLE, ONLY
from shardwright.cost.rank import RankLayer
from shardwright.cost.shape import StageShape
from shardwright.cost.terms import joined
from shardwright.cost.times import Load, StageClock, hop_ns
from shardwright.ingest import gpu, model
from shardwright.schema.workload import Precision, Workload

WORKLOAD = """{"input_tokens": {"constant": 1024}, "output_tokens": {"constant": 256},
               "max_context_tokens": 4096}"""
MIX = RequestMix.of(Workload.model_validate_json(WORKLOAD))
LLAMA = model("meta-llama/Meta-Llama-3-70B-Instruct")
GEMMA = model("google/gemma-3-27b-it")
BF16 = Precision()
TYPES = ("H100-SXM", "A100-80", "L4", "L40S")


def clock(name: str, tp: int, spec: Any = LLAMA) -> StageClock:
    return StageClock(spec, BF16, MIX, gpu(name), StageShape.dense(tp))


H100 = gpu("H100-SXM")
SET = H100.calibration
VLLM = SET.engine("generic")
HBM = 3350e9 * SET.hbm_efficiency


def load(m: Any, x: Any) -> Load:
    """One attention rank has all tokens, in every iteration."""
    return Load.lone_chunk(m, x, 1)


def test_an_engine_that_is_not_listed_is_vllm() -> None:
    assert SET.engine("generic") == SET.engine("vllm") != SET.engine("sglang")
    plain = SET.model_copy(update={"engines": {}})
    assert plain.engine("vllm").layer_overhead_us == SET.layer_overhead_us
    assert plain.engine("vllm").compute_factor == 1


def rank(tp: int, spec: Any = LLAMA, kind: int = 0) -> RankLayer:
    return RankLayer.of(spec, spec.layer_kinds[kind], StageShape.dense(tp), BF16)


def array(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def layer_ns(name: str, tp: int, m: float, x: float) -> tuple[int, int]:
    """Total and communication of one layer."""
    total, comm = clock(name, tp).layer(rank(tp), load(array(m), array(x)))
    return int(total[0]), int(comm[0])


def hidden_s(tokens: int) -> float:
    return SET.hidden_accesses * tokens * 8192 * 2 / HBM


def overhead_s() -> float:
    return SET.overhead_factor * VLLM.layer_overhead_us * 1e-6


def linear_s(tokens: int) -> float:
    """One layer of Llama-3-70B on one H100: computed and read."""
    rate = 989e12 * SET.matmul_efficiency["bf16"] * VLLM.compute_factor
    computed = 2 * 855_638_016 * tokens / rate
    return float(joined(computed, 855_638_016 * 2 / HBM, SET.roofline_exponent))


def test_joined_times_lie_between_the_larger_and_the_sum() -> None:
    a, b = array(0, 1, 2, 5), array(0, 3, 2, 0)
    assert (joined(a, b, 0.0) == np.maximum(a, b)).all()
    assert joined(a, b, 1.0) == pytest.approx(a + b)
    half = joined(a, b, 2.0)
    assert half == pytest.approx(np.hypot(a, b))
    assert (joined(a, b, 40.0) <= half).all()


def test_a_decode_layer_reads_weights_and_cache() -> None:
    """One H100, m = 8: weights, 8 x 1152 tokens of 4096 bytes, and the overhead."""
    cache = 8 * 1152 * 4096 / (3350e9 * SET.kv_read_efficiency)
    seconds = linear_s(8) + hidden_s(8) + cache + overhead_s()
    total, comm = layer_ns("H100-SXM", 1, 8, 0)
    assert total == pytest.approx(np.ceil(seconds * 1e9), abs=1)
    assert comm == 0


def test_a_prefill_layer_computes() -> None:
    """2048 tokens on one H100: 2 P n FLOP, attention over 512 positions each."""
    rate = 989e12 * SET.attention_efficiency * VLLM.compute_factor
    positions = 512 + SET.attention_ramp_tokens
    attention = 4 * 2048 * positions * 64 * 128 / rate
    seconds = linear_s(2048) + hidden_s(2048) + attention + overhead_s()
    total, _ = layer_ns("H100-SXM", 1, 0, 2048)
    assert total == pytest.approx(np.ceil(seconds * 1e9), abs=1)


def test_two_all_reduces_per_layer() -> None:
    """64 tokens of 16 KiB over four ranks: a start-up and 1.5 of the message each."""
    start = SET.allreduce_latency_us[4] * 1e-6
    seconds = start + 1.5 * 64 * 16_384 / (450e9 * SET.link_efficiency)
    _, comm = layer_ns("H100-SXM", 4, 64, 0)
    assert comm == int(np.ceil(2 * seconds * 1e9))


def test_prompts_of_a_balanced_iteration_come_in_chunks() -> None:
    """A quarter of the iterations carry a chunk of 1024, the others none."""
    subject = clock("H100-SXM", 1)
    mixed = Load.balanced(array(8), array(256), array(1024), 1)
    total = subject.layer(rank(1), mixed)[0][0]
    full, rest = layer_ns("H100-SXM", 1, 8, 1024)[0], layer_ns("H100-SXM", 1, 8, 0)[0]
    assert total == pytest.approx(0.25 * full + 0.75 * rest, abs=2)
    every = Load.balanced(array(8), array(3000), array(1024), 1)
    assert subject.layer(rank(1), every)[0][0] == layer_ns("H100-SXM", 1, 8, 3000)[0]


def test_chunks_of_several_prompts_lie_on_several_ranks() -> None:
    few = Load.balanced(array(2), array(1000), array(1024), 4)
    each = Load.balanced(array(8), array(1024), array(1024), 4)
    many = Load.balanced(array(8), array(8192), array(1024), 4)
    assert [x.prompts[0] for x in (few, each, many)] == [1024, 1024, 2048]
    assert [x.tokens[0] for x in (few, each, many)] == [2 + 2048, 8 + 4096, 8 + 8192]
    assert each.share is not None and each.share[0] == 0.25


def test_start_up_of_sizes_that_are_not_listed() -> None:
    """Three ranks take the entry of four, 256 the largest there is."""
    listed = {
        tp: float(clock("H100-SXM", tp).links.all_reduce(array(0), tp)[0]) * 1e6
        for tp in (3, 4, 256)
    }
    table = SET.allreduce_latency_us
    assert listed == pytest.approx({3: table[4], 4: table[4], 256: table[128]})
    assert clock("H100-SXM", 1).links.all_reduce(array(10**9), 1)[0] == 0


def test_a_hop_carries_hidden_state_and_residual() -> None:
    h100 = gpu("H100-SXM")
    inside = hop_ns(LLAMA, BF16, h100, h100, True)(array(100))[0]
    across = hop_ns(LLAMA, BF16, h100, h100, False)(array(100))[0]
    payload = 100 * 2 * 8192 * 2
    assert inside == np.ceil((10e-6 + payload / (450e9 * SET.link_efficiency)) * 1e9)
    assert across == np.ceil((20e-6 + payload / (50e9 * 0.8)) * 1e9)


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("second", TYPES)
def test_leaving_an_island_is_never_faster(first: str, second: str) -> None:
    """The counting of routes relies on it; the two directions agree."""
    a, b = gpu(first), gpu(second)
    tokens = array(1, 64, 4096)
    across = hop_ns(LLAMA, BF16, a, b, False)(tokens)
    assert (across == hop_ns(LLAMA, BF16, b, a, False)(tokens)).all()
    for end in (a, b):
        assert (hop_ns(LLAMA, BF16, end, end, True)(tokens) <= across).all()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("spec", [LLAMA, GEMMA], ids=["llama", "gemma"])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_more_tokens_never_take_less_time(name: str, spec: Any, tp: int) -> None:
    steps = array(0, 1, 2, 7, 8, 64, 65, 256, 1024, 8192)
    still = np.full_like(steps, 16)
    subject = clock(name, tp, spec)
    for kind in range(len(spec.layer_kinds)):
        for m, x in ((steps, still), (still, steps)):
            total, comm = subject.layer(rank(tp, spec, kind), load(m, x))
            assert (np.diff(total) >= 0).all()
            assert (np.diff(comm) >= 0).all()
            assert (comm <= total).all()
    for role in (MIDDLE, FIRST, LAST, ONLY):
        for m, x in ((steps, still), (still, steps)):
            total, comm = subject.stage_constant(role, load(m, x))
            assert (np.diff(total) >= 0).all()
            assert (comm <= total).all()


@pytest.mark.parametrize("name", TYPES)
def test_more_ranks_compute_no_slower_and_talk_no_less(name: str) -> None:
    """Without its all-reduces a layer never slows down with tp; these only grow."""
    for m, x in ((1, 0), (64, 256), (0, 4096)):
        costs = [layer_ns(name, tp, m, x) for tp in (1, 2, 4, 8)]
        # both are rounded up, so their difference is known to one nanosecond
        alone = [total - comm for total, comm in costs]
        assert all(later <= earlier + 1 for earlier, later in pairwise(alone))
        comm = [c for _, c in costs]
        assert comm == sorted(comm)
        assert comm[0] == 0


def test_ends_of_a_pipeline_do_more() -> None:
    subject = clock("H100-SXM", 2)
    one = [
        int(subject.stage_constant(r, load(array(8), array(32)))[0][0])
        for r in range(4)
    ]
    own_us = VLLM.step_overhead_us + 8 * VLLM.sequence_overhead_us
    assert one[MIDDLE] == pytest.approx(own_us * 1000, abs=1)
    assert one[MIDDLE] < one[FIRST] < one[ONLY]
    assert one[MIDDLE] < one[LAST] < one[ONLY]
    extra = one[FIRST] + one[LAST] - one[MIDDLE] - one[ONLY]
    assert abs(extra) <= 2  # each is rounded up as one sum
