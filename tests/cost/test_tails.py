"""Closed forms of the tails: limits that are known exactly, and order."""

from __future__ import annotations

from dataclasses import replace
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.cost.tails import (
    Blend,
    IterationLaw,
    LengthLaw,
    RequestLaw,
    Station,
    Target,
    cheap_bounds,
    evaluate,
    evaluate_pair,
    max_rate,
)
from shardwright.cost.tails.backlog import stationary
from shardwright.cost.tails.normal import normal_quantile
from shardwright.cost.tails.occupancy import Occupancy
from shardwright.cost.tails.points import COUNT, Axis, coordinates
from shardwright.schema.workload import Lengths

LAW = IterationLaw(0.01, 5e-5, 3e-5)
MIXED = Station(LAW, slots=256, chunk_tokens=8192)
RING = Station(
    IterationLaw(0.0025, 1.25e-5, 7.5e-6),
    slots=256,
    chunk_tokens=8192,
    rest=IterationLaw(0.0079, 3.75e-5, 2.25e-5),
    micro_batches=4,
)
CONSTANT = RequestLaw(LengthLaw.constant(1024), LengthLaw.constant(128))
RANDOM = RequestLaw(LengthLaw.lognormal(1024, 1.0), LengthLaw.exponential(128))
METRICS = ("ttft", "tpot", "itl", "e2e")


def test_points_are_spread_evenly_on_every_axis() -> None:
    even = (np.arange(COUNT) + 0.5) / COUNT
    for axis in Axis:
        assert np.allclose(np.sort(coordinates(axis)), even)


def test_pairs_of_axes_fill_their_square_evenly() -> None:
    cells = 16
    for a in range(6):
        for b in range(a):
            x, y = coordinates(Axis(a)), coordinates(Axis(b))
            counts, *_ = np.histogram2d(x, y, cells, [[0, 1], [0, 1]])
            assert counts.min() > 0.6 * COUNT / cells**2


def test_normal_quantiles_are_those_of_the_standard_library() -> None:
    from statistics import NormalDist

    shares = np.array([1e-6, 0.01, 0.0243, 0.3, 0.5, 0.9, 0.999999])
    expected = [NormalDist().inv_cdf(float(s)) for s in shares]
    assert normal_quantile(shares) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("law", "mean", "second"),
    [
        (LengthLaw.constant(100), 100, 1e4),
        (LengthLaw.exponential(100), 100, 2e4),
        (LengthLaw.lognormal(100, 1.5), 100, 1e4 * (1 + 1.5**2)),
        (LengthLaw.histogram([(10, 1), (30, 3)]), 25, 700),
    ],
)
def test_laws_of_lengths_keep_their_moments(
    law: LengthLaw, mean: float, second: float
) -> None:
    assert law.mean == pytest.approx(mean)
    assert law.second == pytest.approx(second, rel=0.02)
    assert law.on_lattice(7.0, 4096) @ (7.0 * np.arange(4096)) == pytest.approx(mean)


def test_documents_become_laws() -> None:
    assert LengthLaw.of(Lengths(constant=8), 0.5).mean == 4
    assert LengthLaw.of(Lengths(mean=100, cv=0.5)).mean == pytest.approx(100)
    assert LengthLaw.of(Lengths(histogram=((10, 1.0), (20, 1.0)))).mean == 15


def test_overlap_of_constant_lengths_is_what_geometry_says() -> None:
    shared = RequestLaw(LengthLaw.constant(1), LengthLaw.constant(101)).overlap
    # R uniform on (0, 100) and o U uniform on (0, 100)
    assert shared.fresh == pytest.approx([100])
    assert shared.present == pytest.approx([50])
    assert shared.present2 == pytest.approx([1e4 / 3])
    assert shared.later == pytest.approx([50])
    assert shared.later2 == pytest.approx([1e4 / 3])


def test_occupancy_of_a_single_server_is_geometric() -> None:
    found = Occupancy.of(0.5, np.array([1.0]), 1.0, 1.0).probabilities[:20]
    assert found == pytest.approx([0.5 * 0.5**n for n in range(20)], rel=1e-6)


def test_occupancy_of_many_servers_is_poisson() -> None:
    found = Occupancy.of(3.0, np.arange(1.0, 60.0), 1.0, 1.0).probabilities
    assert found[0] == pytest.approx(exp(-3.0))
    assert found[3] == pytest.approx(exp(-3.0) * 27 / 6)


@pytest.mark.parametrize("states", [1, 2, 12, 14, 15, 40, 112])
def test_elimination_finds_stationary_laws(states: int) -> None:
    rng = np.random.default_rng(5)
    chains = rng.random((3, states, states))
    chains /= chains.sum(axis=2, keepdims=True)
    for chain, law in zip(chains, stationary(chains), strict=True):
        assert law @ chain == pytest.approx(law)
        assert law.sum() == pytest.approx(1)


@pytest.mark.parametrize("station", [MIXED, RING], ids=["one stage", "ring"])
def test_a_lone_request_takes_its_own_time(station: Station) -> None:
    tails = evaluate(station, CONSTANT, 1e-4)
    whole = station.whole
    assert tails.ttft_s(0.5) == pytest.approx(whole.seconds(0, 1024), rel=0.02)
    assert tails.tpot_s(0.5) == pytest.approx(whole.seconds(1, 0), rel=0.02)
    assert tails.itl_s(0.5) == pytest.approx(whole.seconds(1, 0), rel=0.02)


def test_long_prompts_pay_for_every_chunk() -> None:
    station = replace(MIXED, chunk_tokens=1000)
    lengths = RequestLaw(LengthLaw.constant(2500), LengthLaw.constant(10))
    expected = 2 * LAW.seconds(0, 1000) + LAW.seconds(0, 500)
    assert station.prompt_s(2500) == pytest.approx(expected)
    assert evaluate(station, lengths, 1e-4).ttft_s(0.5) == pytest.approx(
        expected, rel=0.02
    )


def test_a_prefill_pool_of_one_chunk_prompts_is_a_queue_in_batches() -> None:
    # at light load an M/D/1 queue: P(wait) = utilisation
    station = replace(MIXED, role="prefill", chunk_tokens=1024)
    service = LAW.seconds(0, 1024)
    tails = evaluate(station, CONSTANT, 0.1 / service)
    assert tails.ttft_s(0.85) == pytest.approx(service, rel=0.01)
    assert tails.ttft_s(0.95) > 1.3 * service
    assert tails.utilisation == pytest.approx(0.1)
    assert tails.mean_s("ttft") == pytest.approx(service * (1 + 0.1 / 1.8), rel=0.02)


@settings(max_examples=12, deadline=None)
@given(
    ring=st.booleans(),
    random=st.booleans(),
    use=st.floats(0.1, 0.7),
    more=st.sampled_from(["rate", "alpha_s", "kappa_s", "beta_s"]),
)
def test_latencies_grow_with_the_rate_and_the_law(
    ring: bool, random: bool, use: float, more: str
) -> None:
    station, lengths = (RING if ring else MIXED), (RANDOM if random else CONSTANT)
    rate = use * station.capacity_per_s(lengths) * (0.7 if ring else 1.0)
    slower, faster = station, rate
    if more == "rate":
        faster = 1.3 * rate
    else:
        slower = replace(
            station,
            law=replace(station.law, **{more: 1.3 * getattr(station.law, more)}),
            rest=replace(station.rest, **{more: 1.3 * getattr(station.rest, more)}),
        )
    before, after = evaluate(station, lengths, rate), evaluate(slower, lengths, faster)
    for metric in METRICS:
        for share in (0.5, 0.9, 0.99):
            low = before.quantile_s(metric, share)
            # numerical noise: rings are fewer than points
            noise = 0.85 if ring else 0.96
            assert after.quantile_s(metric, share) >= noise * low, (metric, share)


@pytest.mark.parametrize("station", [MIXED, RING], ids=["one stage", "ring"])
def test_beyond_capacity_nothing_is_stable(station: Station) -> None:
    limit = station.capacity_per_s(RANDOM)
    tails = evaluate(station, RANDOM, 1.01 * limit)
    assert not tails.stable
    assert all(tails.quantile_s(metric, 0.5) == inf for metric in METRICS)
    assert tails.utilisation > 1


def test_the_same_question_has_the_same_answer() -> None:
    first = [evaluate(RING, RANDOM, 9.0).quantile_s(m, 0.99) for m in METRICS]
    again = [evaluate(RING, RANDOM, 9.0).quantile_s(m, 0.99) for m in METRICS]
    assert first == again


def test_lumpy_prompts_cost_a_pipeline_more_than_one_stage() -> None:
    # the mean law says equal: a bubble follows every lone prompt
    pace = evaluate(RING, CONSTANT, 5.0).load.pace
    stall = pace.stall(np.array([0.0, 64.0]))
    assert np.all(stall > 2)
    assert np.all(stall <= RING.whole.beta_s / RING.law.beta_s + 0.1)


def test_bursts_lengthen_tails() -> None:
    station = replace(MIXED, slots=48)
    smooth, bursty = (evaluate(station, CONSTANT, 10.0, ca2) for ca2 in (1.0, 6.0))
    assert bursty.tpot_s(0.99) > 1.1 * smooth.tpot_s(0.99)
    assert bursty.ttft_s(0.99) > smooth.ttft_s(0.99)


def test_knife_edges_are_flagged() -> None:
    station = replace(MIXED, slots=32)
    limit = station.capacity_per_s(CONSTANT)
    found = [evaluate(station, CONSTANT, use * limit) for use in (0.3, 0.7, 0.97)]
    assert [tails.knife_edge for tails in found] == [False, True, False]
    shares = [tails.slots_full for tails in found]
    assert shares[0] < 0.001 < shares[1] < 0.05 < shares[2]


def test_a_pair_of_pools_adds_transfer_to_the_first_token() -> None:
    prefill = replace(MIXED, role="prefill")
    moved = replace(prefill, kv_transfer_s=0.5, kv_transfer_s_per_token=1e-4)
    decode = replace(MIXED, role="decode")
    near, far = (evaluate_pair(p, decode, CONSTANT, 2.0, 4.0) for p in (prefill, moved))
    assert far.ttft_s(0.5) - near.ttft_s(0.5) == pytest.approx(0.5 + 0.1024)
    assert far.tpot_s(0.99) == near.tpot_s(0.99)
    # no prompt is in the way of decodes
    assert near.itl_s(0.99) < LAW.seconds(40, 0)


def test_a_blend_of_equals_is_one_of_them() -> None:
    one = evaluate(MIXED, RANDOM, 4.0)
    blend = Blend((one, one), (0.5, 0.5))
    for metric in METRICS:
        assert blend.quantile_s(metric, 0.9) == one.quantile_s(metric, 0.9)
        assert blend.mean_s(metric) == pytest.approx(one.mean_s(metric))


def test_the_largest_rate_meets_its_targets_and_a_little_more_does_not() -> None:
    targets = [Target("ttft", 0.99, 0.3), Target("tpot", "mean", 0.02)]
    rate = max_rate(MIXED, RANDOM, targets)
    assert 0 < rate < cheap_bounds(MIXED, RANDOM, tuple(targets))
    assert all(t.met(evaluate(MIXED, RANDOM, rate)) for t in targets)
    more = evaluate(MIXED, RANDOM, 1.05 * rate)
    assert not all(t.met(more) for t in targets)


@pytest.mark.parametrize("station", [MIXED, RING], ids=["one stage", "ring"])
@pytest.mark.parametrize("metric", ["ttft", "tpot", "e2e"])
def test_what_no_load_misses_has_no_rate(station: Station, metric: str) -> None:
    impossible = Target(metric, 0.99, 1e-3)  # type: ignore[arg-type]
    assert cheap_bounds(station, RANDOM, (impossible,)) == 0.0
    assert max_rate(station, RANDOM, [impossible]) == 0.0
    # the bound is never above what the closed forms give without load
    alone = evaluate(station, RANDOM, 1e-5).quantile_s(metric, 0.99)  # type: ignore[arg-type]
    reachable = Target(metric, 0.99, 1.05 * alone)  # type: ignore[arg-type]
    assert cheap_bounds(station, RANDOM, (reachable,)) > 0


@pytest.mark.parametrize("q", [1, 4])
@pytest.mark.parametrize("role", ["mixed", "prefill", "decode"])
@pytest.mark.parametrize("ca2", [1.0, 6.0])
@pytest.mark.parametrize(
    ("prompt", "output"),
    [
        (LengthLaw.constant(1), LengthLaw.constant(1)),
        (LengthLaw.histogram([(10, 1), (20_000, 1)]), LengthLaw.exponential(5)),
    ],
)
def test_odd_lengths_have_finite_figures(
    q: int, role: str, ca2: float, prompt: LengthLaw, output: LengthLaw
) -> None:
    rest = IterationLaw(0.03, 1e-4, 9e-5) if q > 1 else IterationLaw(0.0, 0.0, 0.0)
    station = replace(MIXED, role=role, rest=rest, micro_batches=q, chunk_tokens=512)
    lengths = RequestLaw(prompt, output)
    rate = min(0.5 * station.capacity_per_s(lengths), 100.0)
    before = replace(station, role="prefill")
    for at in (1e-6, rate):
        tails = evaluate(station, lengths, at, ca2)
        if role == "decode":
            tails = evaluate_pair(before, station, lengths, 1e-3, at, ca2)
        figures = [tails.quantile_s(m, s) for m in METRICS for s in (0.5, 0.99)]
        assert not np.isnan([*figures, tails.mean_s("tpot"), tails.mean_s("e2e")]).any()
        assert min(figures) >= 0
