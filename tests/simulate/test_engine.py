"""The simulator against timetables worked out by hand, and against itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shardwright.simulate import Group, Machine, Measured, Requests, StageLaw, serve
from shardwright.simulate.fleet import route, run_machine
from shardwright.simulate.requests import arrivals, with_lengths
from shardwright.simulate.ring import Ring
from shardwright.simulate.single import SingleStage

LAW = StageLaw(1.0, 0.1, 0.01)
ONE = Machine((LAW,), slots=4, chunk_tokens=100)


def requests(rows: list[tuple[float, int, int]]) -> Requests:
    """Arrival, prompt tokens, output tokens."""
    times, prompts, outputs = zip(*rows, strict=True)
    return with_lengths(np.array(times, float), np.array(prompts), np.array(outputs))


def test_a_lone_request_by_hand() -> None:
    log = run_machine(ONE, requests([(5.0, 250, 3)]))
    # chunks of 100, 100, 50: 2 + 2 + 1.5; then two decodes of 1.1
    assert log.first_s == pytest.approx([10.5])
    assert log.done_s == pytest.approx([12.7])


def test_decodes_and_prompts_share_iterations() -> None:
    log = run_machine(ONE, requests([(0.0, 100, 4), (2.5, 50, 1)]))
    # 0-2 prompt; 2-3.1 decode; 3.1-4.7 decode with the other prompt; 4.7-5.8 decode
    assert log.first_s == pytest.approx([2.0, 4.7])
    assert log.done_s == pytest.approx([5.8, 4.7])
    assert log.interval_s == pytest.approx([1.1, 1.6, 1.1])


def test_slots_are_waited_for() -> None:
    machine = replace(ONE, slots=1)
    log = run_machine(machine, requests([(0.0, 100, 2), (0.0, 100, 1)]))
    assert log.first_s == pytest.approx([2.0, 5.1])


def test_kv_room_admits_one_after_the_other() -> None:
    machine = replace(ONE, kv_tokens=150)
    log = run_machine(machine, requests([(0.0, 100, 2), (0.0, 100, 1)]))
    assert log.first_s == pytest.approx([2.0, 5.1])
    assert log.preemptions == 0


def test_the_latest_gives_way_when_kv_runs_out() -> None:
    machine = replace(ONE, kv_tokens=42)
    log = run_machine(machine, requests([(0.0, 20, 5), (0.0, 20, 5)]))
    assert log.preemptions == 1
    # 0-1.4 both prompts, one decode of both to 2.6; then the first alone, to 5.9
    assert log.done_s[0] == pytest.approx(5.9)
    # the second computes 21 tokens anew (1.21) and decodes three steps
    assert log.done_s[1] == pytest.approx(5.9 + 1.21 + 3.3)


def test_two_stages_by_hand() -> None:
    hops = (StageLaw(0.5, 0.0, 0.0), StageLaw(0.25, 0.0, 0.0))
    ring = Machine((LAW, LAW), 4, 100, micro_batches=2, hops=hops)
    log = run_machine(ring, requests([(0.0, 150, 2)]))
    # chunk 1: 0-2, 2.5-4.5; chunk 2 follows: 2-3.5, 4.5-6; back 6.25;
    # decode 6.25-7.35, 7.85-8.95
    assert log.first_s == pytest.approx([6.0])
    assert log.done_s == pytest.approx([8.95])


def test_a_large_prompt_holds_up_small_ones_behind_it() -> None:
    ring = Machine((StageLaw(0.0, 0.0, 0.01),) * 3, 9, 1000, micro_batches=3)
    log = run_machine(ring, requests([(0.0, 1000, 1), (0.1, 100, 1)]))
    assert log.first_s == pytest.approx([30.0, 31.0])


def random_requests(seed: int, count: int = 400) -> Requests:
    """Lognormal prompts, geometric outputs."""
    rng = np.random.default_rng(seed)
    prompts = np.rint(rng.lognormal(4, 1, count)).astype(np.int64) + 1
    return with_lengths(arrivals(0.05, count, rng), prompts, rng.geometric(0.1, count))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kv_tokens", [None, 1500])
def test_a_ring_of_one_is_the_single_stage(seed: int, kv_tokens: int | None) -> None:
    machine = replace(ONE, kv_tokens=kv_tokens)
    drawn = random_requests(seed)
    ring, single = (kind(machine, drawn, True).run() for kind in (Ring, SingleStage))
    assert ring.first_s == pytest.approx(single.first_s)
    assert ring.done_s == pytest.approx(single.done_s)
    assert ring.preemptions == single.preemptions
    tokens = float(np.sum(drawn.output - 1))
    assert sum(ring.interval_count) == sum(single.interval_count) == tokens


@pytest.mark.parametrize("seed", range(3))
def test_laps_taken_at_once_change_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = (StageLaw(0.2, 0.0, 0.0),) * 2
    machine = Machine((LAW, LAW), 4, 100, micro_batches=2, hops=hops)
    drawn = random_requests(seed)
    quick = Ring(machine, drawn, True).run()
    monkeypatch.setattr(Ring, "_alone", lambda self, lap: None)
    plain = Ring(machine, drawn, True).run()
    assert quick.done_s == pytest.approx(plain.done_s)
    assert len(quick.interval_s) < len(plain.interval_s)
    assert sum(quick.interval_count) == sum(plain.interval_count)


@pytest.mark.parametrize("stages", [1, 3])
def test_every_request_is_served_once_and_in_time(stages: int) -> None:
    machine = Machine((LAW,) * stages, 8, 100, stages, kv_tokens=2500)
    drawn = random_requests(9)
    log = run_machine(machine, drawn)
    least = drawn.prompt * LAW.beta_s + LAW.alpha_s * stages
    assert np.all(log.first_s - drawn.arrival_s >= least * (1 - 1e-9))
    assert np.all(log.done_s >= log.first_s)
    several = drawn.output > 1
    assert np.all(log.done_s[several] > log.first_s[several])
    assert sum(log.interval_count) == np.sum(drawn.output - 1)


def test_an_mm1_queue_has_its_known_mean() -> None:
    # one slot, no prompt time, a token per second: the output is the service time
    machine = Machine((StageLaw(0.0, 1e-3, 1e-9),), 1, 10**6)
    rng = np.random.default_rng(3)
    count = 60_000
    outputs = np.rint(rng.exponential(1000, count)).astype(np.int64) + 1
    drawn = with_lengths(arrivals(0.5, count, rng), np.ones(count, np.int64), outputs)
    served = serve([Group((machine,))], drawn, "random", rng)
    assert Measured.of(served).value("e2e", "mean") == pytest.approx(2.0, rel=0.06)


def test_pools_in_series_hand_over() -> None:
    rng = np.random.default_rng(0)
    groups = (Group((ONE,), "prefill", 0.5, 0.01), Group((ONE,), "decode"))
    served = serve(groups, requests([(0.0, 100, 3)]), "random", rng)
    # prompt to 2, transfer to 3.5, two decodes of 1.1
    assert served.first_s == pytest.approx([3.5])
    assert served.done_s == pytest.approx([5.7])


def test_order_of_groups_does_not_matter() -> None:
    groups = (Group((ONE,), "decode"), Group((ONE,), "prefill", 0.5))
    one, other = (
        serve(g, random_requests(1), "round_robin", np.random.default_rng(0)).done_s
        for g in (groups, groups[::-1])
    )
    assert one == pytest.approx(other)


@pytest.mark.parametrize("routing", ["random", "round_robin", "least_loaded"])
def test_requests_are_split_by_weight(routing: str) -> None:
    group = Group((ONE, ONE, ONE))
    drawn = random_requests(2, 3000)
    weights = np.array([1.0, 2.0, 3.0])
    rng = np.random.default_rng(0)
    home = route(group, drawn, routing, rng, weights)  # type: ignore[arg-type]
    share = np.bincount(home, minlength=3) / len(drawn)
    assert share == pytest.approx(weights / 6, abs=0.03)


@pytest.mark.parametrize("ca2", [0.25, 1.0, 4.0])
def test_arrivals_have_their_rate_and_spread(ca2: float) -> None:
    times = arrivals(10.0, 100_000, np.random.default_rng(1), ca2)
    between = np.diff(times)
    assert between.mean() == pytest.approx(0.1, rel=0.03)
    assert between.var() / between.mean() ** 2 == pytest.approx(ca2, rel=0.06)
