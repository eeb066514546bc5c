"""Runs played request by request, against closed forms and the room simulate."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shardwright.planning.client_runs import (
    Engine,
    Pools,
    Requests,
    Steps,
    Times,
    played,
    played_apart,
)
from shardwright.simulate.machine import Machine, StageLaw
from shardwright.simulate.requests import Requests as Arriving
from shardwright.simulate.single import SingleStage

ALPHA, KAPPA, BETA = 0.01, 1e-4, 2e-5


def steps(most: float = 64.0, budget: float = 8192.0) -> Steps:
    """alpha + kappa b + beta x on a coarse grid: exact, for it is linear."""
    b = [0.0, most / 4, most]
    x = [0.0, budget / 16, budget]
    return Steps(b, x, [[ALPHA + KAPPA * m + BETA * n for n in x] for m in b])


def engine(slots: int = 64, budget: float = 8192.0, first: bool = False) -> Engine:
    return Engine(steps(), slots, budget, budget, first)


def loop(clients: int, prompt: float, output: int, rounds: int = 10) -> Requests:
    n = clients * rounds
    return Requests([prompt] * n, [output] * n, [0.0] * n, clients)


def test_steps_are_linear_between_and_beyond_their_points() -> None:
    for b, x in ((0, 0), (3, 700), (64, 8192), (100, 20_000)):
        assert steps().at(b, x) == pytest.approx(ALPHA + KAPPA * b + BETA * x)


def test_one_client_waits_for_its_own_prompt() -> None:
    found = played(engine(), loop(1, 1024, 100))
    assert found.first_s == pytest.approx(np.full(10, ALPHA + BETA * 1024))
    assert found.token_s == pytest.approx(np.full(10, ALPHA + KAPPA))


@pytest.mark.parametrize("first", [False, True])
def test_equal_requests_come_in_waves(first: bool) -> None:
    """All prompts of a wave fit one iteration, so nobody decodes beside them."""
    found = played(engine(first=first), loop(8, 512, 50))
    assert found.first_s == pytest.approx(np.full(80, ALPHA + BETA * 4096))


def test_waves_larger_than_an_iteration_queue() -> None:
    """16 prompts of 4,096 tokens, two a pass: alone, they wait for one another."""
    found = played(engine(first=True), loop(16, 4096, 50))
    one = ALPHA + BETA * 8192
    assert found.first_s[:16] == pytest.approx(np.repeat(np.arange(1, 9) * one, 2))


def test_prompts_first_stall_decoding() -> None:
    """Lengths that differ: the same prompts cost the decoding sequences more."""
    chance = random.Random(5)
    n = 200
    mixed = Requests([1024.0] * n, [chance.randint(40, 60) for _ in range(n)],
                     [0.0] * n, 16)  # fmt: skip
    shared, alone = played(engine(), mixed), played(engine(first=True), mixed)
    assert alone.token_s.mean() > shared.token_s.mean()


def arriving(seed: int, rate: float) -> tuple[Requests, Arriving]:
    chance = np.random.default_rng(seed)
    n = 300
    arrival = np.cumsum(chance.exponential(1 / rate, n))
    prompt = chance.integers(1, 2000, n)
    output = chance.integers(1, 120, n)
    mine = Requests([float(p) for p in prompt], output.tolist(), arrival.tolist())
    return mine, Arriving(arrival, prompt, prompt, output)


@pytest.mark.parametrize("seed", range(12))
def test_open_runs_are_those_of_the_simulator(seed: int) -> None:
    """An independent iteration loop, from half empty to far beyond capacity."""
    rate = (2.0, 8.0, 15.0, 40.0)[seed % 4]
    slots = (4, 16, 64)[seed % 3]
    mine, theirs = arriving(seed, rate)
    huge = Engine(steps(), slots, 1e9, 1e9)
    found = played(huge, mine)
    law = StageLaw(ALPHA, KAPPA, BETA)
    log = SingleStage(Machine((law,), slots, 10**9), theirs, True).run()
    assert found.first_s == pytest.approx(log.first_s - theirs.arrival_s, rel=1e-6)
    assert found.run_s == pytest.approx(float(np.max(log.done_s)), rel=1e-6)


def pools(workers: int = 1, slots: int = 64) -> Pools:
    one = Engine(steps(), 10**9, 1024, 1024)
    return Pools(one, workers, Engine(steps(), slots, 1024, 1024), 2)


def test_two_pools_of_one_client() -> None:
    found = played_apart(pools(), loop(1, 1024, 100))
    assert found.first_s == pytest.approx(np.full(10, ALPHA + BETA * 1024))
    assert found.token_s == pytest.approx(np.full(10, ALPHA + KAPPA / 2))


def test_a_prompt_pool_at_its_limit_takes_every_client_in_turn() -> None:
    """C clients, a prompt w: a round takes C w, less what decoding covers of it."""
    clients, w = 64, ALPHA + BETA * 1024
    found = played_apart(pools(), loop(clients, 1024, 20, rounds=30))
    covered = 19 * float(np.median(found.token_s))
    late = found.first_s[10 * clients :]
    assert float(np.median(late)) == pytest.approx(clients * w - covered, rel=0.02)
    half = played_apart(pools(workers=2), loop(clients, 1024, 20, rounds=30))
    assert np.median(half.first_s) < 0.6 * np.median(found.first_s)


def checked(found: Times, requests: Requests, least: float) -> None:
    assert len(found.first_s) == len(requests)
    assert np.isfinite(found.first_s).all() and np.isfinite(found.token_s).all()
    assert (found.first_s >= least - 1e-9).all()
    assert found.run_s >= max(requests.arrival)


@pytest.mark.parametrize("seed", range(40))
def test_any_run_ends(seed: int) -> None:
    """Slots, budgets, lengths and protocols at random: nothing hangs or goes back."""
    chance = random.Random(seed)
    n = chance.randint(1, 80)
    clients = chance.choice((None, 1, chance.randint(1, n)))
    prompt = [chance.choice((1.0, 30.5, 500.0)) for _ in range(n)]
    output = [chance.choice((1, 2, 50, 10**9)) for _ in range(n)]
    arrival = sorted(
        chance.random() * chance.choice((0.0, 1.0, 100.0)) for _ in range(n)
    )
    requests = Requests(prompt, output, arrival, clients)
    budget = chance.choice((4.0, 64.0, 8192.0))
    one = Engine(steps(budget=8192.0), chance.choice((1, 3, 1000)), budget,
                 chance.choice((1.0, budget)), chance.random() < 0.5)  # fmt: skip
    checked(played(one, requests), requests, ALPHA)
    apart = Pools(one, chance.randint(1, 4), one, chance.randint(1, 3))
    checked(played_apart(apart, requests), requests, ALPHA)
