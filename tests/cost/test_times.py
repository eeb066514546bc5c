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


def load(m: Any, x: Any) -> Load:
    """One attention rank has all tokens."""
    return Load.balanced(m, x, 1)


def rank(tp: int, spec: Any = LLAMA, kind: int = 0) -> RankLayer:
    return RankLayer.of(spec, spec.layer_kinds[kind], StageShape.dense(tp), BF16)


def array(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def layer_ns(name: str, tp: int, m: float, x: float) -> tuple[int, int]:
    """Total and communication of one layer."""
    total, comm = clock(name, tp).layer(rank(tp), load(array(m), array(x)))
    return int(total[0]), int(comm[0])


def test_a_decode_layer_reads_weights_and_cache() -> None:
    """One H100, m = 8: weights, 8 x 1152 tokens of 4096 bytes, and the overhead."""
    weights = 855_638_016 * 2 / (3350e9 * 0.85)
    cache = 8 * 1152 * 4096 / (3350e9 * 0.89)
    total, comm = layer_ns("H100-SXM", 1, 8, 0)
    assert total == int(np.ceil((weights + cache + 14e-6) * 1e9))
    assert comm == 0


def test_a_prefill_layer_computes() -> None:
    """2048 tokens on one H100: 2 P n FLOP, attention over 512 positions each."""
    linear = 2 * 855_638_016 * 2048 / (989e12 * 0.51)
    attention = 4 * 2048 * 512 * 64 * 128 / (989e12 * 0.58)
    total, _ = layer_ns("H100-SXM", 1, 0, 2048)
    assert total == int(np.ceil((linear + attention + 14e-6) * 1e9))


def test_two_all_reduces_per_layer() -> None:
    """64 tokens of 16 KiB over four ranks: 18 us and 1.5 of the message each."""
    seconds = 18e-6 + 1.5 * 64 * 16_384 / (450e9 * 0.52)
    _, comm = layer_ns("H100-SXM", 4, 64, 0)
    assert comm == int(np.ceil(2 * seconds * 1e9))


def test_start_up_of_sizes_that_are_not_listed() -> None:
    """Three ranks take the entry of four, sixteen the largest there is."""
    listed = {
        tp: float(clock("H100-SXM", tp).links.all_reduce(array(0), tp)[0])
        for tp in (3, 4, 16)
    }
    assert listed == pytest.approx({3: 18e-6, 4: 18e-6, 16: 25e-6})
    assert clock("H100-SXM", 1).links.all_reduce(array(10**9), 1)[0] == 0


def test_a_hop_carries_hidden_state_and_residual() -> None:
    h100 = gpu("H100-SXM")
    inside = hop_ns(LLAMA, BF16, h100, h100, True)(array(100))[0]
    across = hop_ns(LLAMA, BF16, h100, h100, False)(array(100))[0]
    payload = 100 * 2 * 8192 * 2
    assert inside == np.ceil((10e-6 + payload / (450e9 * 0.52)) * 1e9)
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
    assert one[MIDDLE] == 420_000 + 8 * 8000
    assert one[MIDDLE] < one[FIRST] < one[ONLY]
    assert one[MIDDLE] < one[LAST] < one[ONLY]
    extra = one[FIRST] + one[LAST] - one[MIDDLE] - one[ONLY]
    assert abs(extra) <= 2  # each is rounded up as one sum
