"""The law of a replica against a simulation that shares nothing with it.

Why TPOT = max(q T, S) is exact: a closed tandem with free buffers is a marked graph.
Its circuits are the server of each stage (tau_s, one token) and the loop of all stages
(S, q tokens, one per micro-batch); the period of a marked graph is the largest ratio
of time to tokens over its circuits, max(T, S/q) per micro-batch, and a micro-batch
comes back every q of them. Constant service times never let one overtake another.
"""

from __future__ import annotations

from random import Random

import pytest
from tests.cost.pipeline import (
    Pipeline,
    chunks_through_ns,
    random_pipeline,
    settled_period_ns,
)

from shardwright.cost.law import rate_mtok_per_s, replica_times
from shardwright.cost.lengths import ceil_div

CASES = 600
BLOCK = 100


def law_tpot_ns(pipeline: Pipeline) -> int:
    """TPOT as the cost room has it; the prefill side does not matter here."""
    idle = [0] * len(pipeline.stage_ns)
    return replica_times(
        pipeline.micro_batches,
        1,
        pipeline.stage_ns,
        idle,
        pipeline.hops_ns,
        idle[1:],
        pipeline.return_ns,
    ).tpot_ns


def pipelines() -> list[Pipeline]:
    """The seeded cases."""
    return [random_pipeline(Random(seed)) for seed in range(CASES)]


@pytest.mark.parametrize("first", range(0, CASES, BLOCK))
def test_tpot_is_the_simulated_period(first: int) -> None:
    for pipeline in pipelines()[first : first + BLOCK]:
        assert law_tpot_ns(pipeline) == settled_period_ns(pipeline), pipeline


def test_both_sides_of_the_law_bind() -> None:
    """The bottleneck and the loop decide at least a quarter of the cases each."""
    sides = {"bottleneck": 0, "loop": 0, "both": 0}
    for p in pipelines():
        full = p.micro_batches * max(p.stage_ns)
        loop = sum(p.stage_ns) + sum(p.delays_ns)
        side = "both" if full == loop else "bottleneck" if full > loop else "loop"
        sides[side] += 1
    print(sides)
    assert min(sides["bottleneck"], sides["loop"]) >= CASES / 4
    assert sides["both"] > 0


def test_prefill_latency_is_the_time_of_the_last_chunk() -> None:
    """Pi = sum sigma + sum theta + (K - 1) max sigma, and TTFT adds half a period."""
    for seed in range(CASES):
        rng = Random(seed)
        p = random_pipeline(rng)
        chunks = rng.randint(1, 9)
        times = replica_times(
            p.micro_batches, chunks, p.stage_ns, p.stage_ns, p.hops_ns, p.hops_ns, 0
        )
        assert times.prefill_ns == chunks_through_ns(chunks, p.stage_ns, p.hops_ns)
        wait = ceil_div(times.tpot_ns, 2 * p.micro_batches)
        assert times.ttft_ns == times.prefill_ns + wait


def test_rate_and_tpot_invert_each_other() -> None:
    """The largest TPOT for a rate still gives it, one nanosecond more does not."""
    rng = Random(0)
    for _ in range(CASES):
        sequences, rate = rng.randint(1, 512), rng.randint(1, 10**8)
        tpot = sequences * 10**12 // rate
        assert rate_mtok_per_s(sequences, tpot + 1) < rate
        if tpot:
            assert rate_mtok_per_s(sequences, tpot) >= rate


# -- simpler laws, and what is wrong with them ---------------------------------------


def test_stages_times_bottleneck_is_not_the_law() -> None:
    """Two stages of 5 ms + 0.1 ms per sequence, 5 ms hop, 64 sequences, q = 2."""
    stage = 5_000_000 + 32 * 100_000
    pipeline = Pipeline(2, (stage, stage), (5_000_000,), 0)
    assert 2 * stage == 16_400_000
    assert law_tpot_ns(pipeline) == settled_period_ns(pipeline) == 21_400_000


def test_as_many_micro_batches_as_stages_is_not_best() -> None:
    """Stages of 10, 4, 4, 4 ms (+ 0.05, 0.02 per sequence), 64 sequences: q = 2."""
    tpot_us = []
    for q in range(1, 7):
        m = ceil_div(64, q)
        first, other = 10_000_000 + 50_000 * m, 4_000_000 + 20_000 * m
        pipeline = Pipeline(q, (first, other, other, other), (0, 0, 0), 0)
        assert law_tpot_ns(pipeline) == settled_period_ns(pipeline)
        tpot_us.append(law_tpot_ns(pipeline) // 1000)
    assert tpot_us == [29_040, 25_520, 33_300, 43_200, 53_250, 63_300]


def test_the_mean_over_stages_is_not_the_law() -> None:
    """Equal sums, unequal stages: with q = p the largest stage decides."""
    even = Pipeline(2, (50, 50), (0,), 0)
    uneven = Pipeline(2, (80, 20), (0,), 0)
    assert settled_period_ns(even) == law_tpot_ns(even) == 100
    assert settled_period_ns(uneven) == law_tpot_ns(uneven) == 160


def test_more_micro_batches_than_the_loop_can_hide_only_queue() -> None:
    """Beyond S / T micro-batches the period per micro-batch stays T."""
    for q in range(1, 9):
        pipeline = Pipeline(q, (30, 40, 10), (5, 5), 10)
        assert law_tpot_ns(pipeline) == max(100, 40 * q)
        assert settled_period_ns(pipeline) == max(100, 40 * q)


def test_one_loop_limit_does_not_average_over_replicas() -> None:
    """Two replicas, S = 20 and 80 under a limit of 50: the sum passes, one fails."""
    loops = [law_tpot_ns(Pipeline(1, (s // 2, s // 2), (0,), 0)) for s in (20, 80)]
    assert sum(loops) <= 2 * 50
    assert max(loops) > 50
