"""Serving modes: the same law as the clock of a stage, and limits that must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shardwright.cost.lengths import RequestMix
from shardwright.cost.memory import ONLY
from shardwright.cost.rank import RankLayer
from shardwright.cost.serving import (
    Measures,
    Runs,
    closed_loop,
    offline_max,
    poisson,
    single_stream,
    static_batch,
)
from shardwright.cost.shape import StageShape
from shardwright.cost.stacked import Deployment, Stack
from shardwright.cost.times import Load, StageClock
from shardwright.ingest import gpu, model
from shardwright.schema.workload import Precision, Workload

DENSE = model("meta-llama/Meta-Llama-3.1-70B")
LATENT = model("deepseek-ai/DeepSeek-V3")
SLIDING = model("openai/gpt-oss-120b")
CASES = [
    (DENSE, Precision(), "H100-SXM", StageShape.dense(4), "vllm"),
    (DENSE, Precision(weights="int4"), "A100-80", StageShape.dense(2), "generic"),
    (LATENT, Precision(weights="fp8"), "H200", StageShape(1, 8, 1, 8), "sglang"),
    (LATENT, Precision(weights="fp8"), "H200", StageShape(8, 1, 8, 1), "trtllm"),
    (SLIDING, Precision(weights="fp4"), "B200", StageShape(2, 2, 2, 2), "trtllm"),
]  # fmt: skip


def runs(stages: int = 1, cap: float = 256.0, given: float = 1024.0) -> Runs:
    """Llama 3.1 70B on four H100 in one replica."""
    d = Deployment(DENSE, Precision(weights="fp8"), gpu("H100-SXM"),
                   StageShape.dense(4 // stages), "vllm", stages)  # fmt: skip
    one = np.ones(1)
    return Runs(Stack.of([d]), given * one, 256 * one, one, cap * one, 8192 * one)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].name}-{c[3].tp}")
@pytest.mark.parametrize(("m", "x"), [(1, 0), (64, 0), (64, 512), (8, 4096)])
def test_stacks_say_what_the_clock_says(case: Any, m: int, x: int) -> None:
    spec, precision, name, shape, engine = case
    workload = Workload.model_validate_json(
        """{"input_tokens": {"constant": 1024}, "output_tokens": {"constant": 512},
        "max_context_tokens": 4096}"""
    )
    mix = RequestMix.of(workload)
    clock = StageClock(spec, precision, mix, gpu(name), shape, engine)
    load = Load.lone_chunk(np.array([float(m)]), np.array([float(x)]), shape.attn_dp)
    kinds = spec.kind_indices()
    ranks = [RankLayer.of(spec, k, shape, precision) for k in spec.layer_kinds]
    layers = sum(
        kinds.count(g) * int(clock.layer(rank, load)[0][0])
        for g, rank in enumerate(ranks)
    )
    whole = layers + int(clock.stage_constant(ONLY, load)[0][0])
    one = np.ones(1)
    stack = Stack.of([Deployment(spec, precision, gpu(name), shape, engine)])
    found = stack.iteration(
        m * one, x * one, 1280 * one, 512 * one, 1024 * one, prompt_ranks=one
    )
    assert found.all_stages[0] * 1e9 == pytest.approx(whole, rel=1e-6, abs=100)
    assert found.slowest_stage[0] == pytest.approx(found.all_stages[0])


def figures(found: Measures) -> list[float]:
    return [float(x[0]) for x in found]


def test_one_client_is_a_single_stream() -> None:
    one = np.ones(1)
    alone = figures(single_stream(runs()))
    looped = figures(closed_loop(runs(), one, np.array([True])))
    # its own next prompt is in the closed loop's balance, and it waits for nobody
    assert looped[0] == pytest.approx(alone[0], rel=0.1)
    assert looped[1] == pytest.approx(alone[1], rel=0.2)


def test_more_clients_wait_longer_and_get_more() -> None:
    before = [0.0, 0.0, 0.0]
    for clients in (1, 4, 16, 64, 256, 512):
        now = figures(closed_loop(runs(), np.array([clients * 1.0]), np.array([True])))
        assert all(a >= b * 0.999 for a, b in zip(now, before, strict=True))
        before = now


def test_the_burst_of_the_start_is_in_the_mean_alone() -> None:
    c = np.array([64.0])
    median = figures(closed_loop(runs(), c, np.array([True])))
    mean = figures(closed_loop(runs(), c, np.array([False])))
    assert mean[0] > median[0]
    assert mean[1] == median[1]


def test_batches_beyond_the_room_run_one_after_another() -> None:
    room = figures(static_batch(runs(cap=32), np.array([32.0])))
    twice = figures(static_batch(runs(cap=32), np.array([64.0])))
    assert twice == pytest.approx(room)


def test_offline_is_the_closed_loop_that_fills_the_room() -> None:
    full = figures(offline_max(runs(cap=64)))[2]
    looped = figures(closed_loop(runs(cap=64), np.array([64.0]), np.array([True])))[2]
    assert looped < full < 1.6 * looped


def test_arrivals_beyond_capacity_are_served_at_capacity() -> None:
    slow = figures(poisson(runs(), np.array([0.5])))
    assert slow[2] == pytest.approx(0.5 * 256)
    flood = figures(poisson(runs(), np.array([1e4])))
    assert flood[2] == pytest.approx(figures(offline_max(runs()))[2])
    assert flood[0] > slow[0] and flood[1] > slow[1]


def test_pipelined_batches_overlap_and_static_ones_do_not() -> None:
    whole, split = runs(1), runs(2)
    batch = np.array([64.0])
    assert (split.token_s(batch, loaded=False, whole=True)
            > split.token_s(batch, loaded=False)).all()  # fmt: skip
    assert (split.token_s(batch) < 4 * whole.token_s(batch)).all()
