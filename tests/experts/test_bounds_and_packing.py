"""Counts, bounds and packings against exhaustive enumeration on tiny rows."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
import pytest

from shardwright.experts.bounds import counting_bound, flat_bound, replica_bound
from shardwright.experts.close import close_rows
from shardwright.experts.effort import FAST, Effort
from shardwright.experts.exact import count_vectors, exact_row
from shardwright.experts.flat import Bins, solve_rows
from shardwright.experts.pack import deal, exchange, longest_first
from shardwright.experts.replicate import (
    even_counts,
    heaviest_copy,
    replica_counts,
)


def oracle(load: np.ndarray, gpus: int, slots: int, distinct: bool) -> float:
    """Least maximum over every way to fill every slot, with all experts present."""
    per_gpu = slots // gpus
    experts = len(load)
    rooms = [
        room
        for room in combinations_with_replacement(range(experts), per_gpu)
        if not distinct or len(set(room)) == per_gpu
    ]
    best = float("inf")
    for chosen in combinations_with_replacement(rooms, gpus):
        counts = np.bincount(np.ravel(chosen), minlength=experts)
        if counts.min() == 0:
            continue
        share = load / counts
        best = min(best, max(sum(share[e] for e in room) for room in chosen))
    return best


TINY = [
    (3, 2, 4),
    (3, 2, 6),
    (4, 2, 6),
    (4, 4, 8),
    (5, 3, 6),
    (4, 3, 9),
    (6, 3, 6),
    (5, 4, 8),
]


@lru_cache(maxsize=1)
def tiny_rows() -> list[tuple[np.ndarray, int, int, bool]]:
    """Integer loads with ties and zeros among them, for every size and rule."""
    random = np.random.default_rng(20)
    rows = []
    for experts, gpus, slots in TINY:
        for distinct in (True, False):
            for spread in (6, 1000):
                load = random.integers(0, spread, experts).astype(float)
                rows.append((load, gpus, slots, distinct))
    return rows


@pytest.mark.parametrize("case", range(4 * len(TINY)))
def test_optimum_equals_the_oracle(case: int) -> None:
    load, gpus, slots, distinct = tiny_rows()[case]
    bins = Bins(gpus, slots, distinct)
    best = oracle(load, gpus, slots, distinct)
    done = close_rows(load[None], bins, Effort())
    assert done.packing.top[0] == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert done.bound[0] == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert flat_bound(load[None], gpus, slots, bins.cap)[0] <= best * (1 + 1e-9)


@pytest.mark.parametrize("distinct", [True, False])
def test_bound_is_never_above_a_plan(distinct: bool) -> None:
    random = np.random.default_rng(3)
    for _ in range(25):
        gpus = int(random.integers(1, 9))
        per_gpu = int(random.integers(1, 7))
        slots = gpus * per_gpu
        experts = int(random.integers(max(1, -(-slots // gpus)), slots + 1))
        load = random.lognormal(0, random.choice([0.3, 1.5]), (4, experts))
        bins = Bins(gpus, slots, distinct)
        done = close_rows(load, bins, Effort(restarts=3, proof_s=1.0, exact_s=0.05))
        assert (done.bound <= done.packing.top * (1 + 1e-9)).all()
        assert_whole(done.packing.expert, load, done.packing.value)


def assert_whole(expert: np.ndarray, load: np.ndarray, value: np.ndarray) -> None:
    """Every expert is there and its copies carry its tokens."""
    for row, ids in enumerate(expert):
        counts = np.bincount(ids.ravel(), minlength=load.shape[1])
        assert counts.min() >= 1
        assert value[row] == pytest.approx((load[row] / counts)[ids])


def test_replica_counts_are_the_best_of_all() -> None:
    random = np.random.default_rng(5)
    for _ in range(40):
        experts, slots = int(random.integers(2, 6)), int(random.integers(6, 10))
        cap = int(random.integers(-(-slots // experts), slots + 1))
        load = random.integers(0, 50, (3, experts)).astype(float)
        counts = replica_counts(load, slots, cap)
        assert (counts.sum(axis=1) == slots).all() and counts.max() <= cap
        every = count_vectors(experts, slots, cap)
        for row, table in enumerate(load):
            assert heaviest_copy(load, counts)[row] == pytest.approx(
                (table / every).max(axis=1).min()
            )
        assert replica_bound(load, slots, cap) == pytest.approx(
            heaviest_copy(load, counts)
        )


def test_counting_bound_sees_the_pigeonhole() -> None:
    load = np.array([[5.0, 5.0, 5.0, 1.0]])
    assert counting_bound(load, 2)[0] == 10.0


def test_even_counts_use_the_ladder() -> None:
    load = np.array([[9.0, 5.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    counts = even_counts(load, 8, (1, 2, 4))
    assert (counts.sum(axis=1) == 8).all()
    assert set(np.unique(counts)) <= {1, 2, 4}
    with pytest.raises(ValueError, match="slots"):
        even_counts(load, 9, (1, 2))


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="slots: found 5, allowed 6 to 12"):
        replica_counts(np.ones((1, 6)), 5, 2)


@pytest.mark.parametrize("per_gpu", [2, 3, 5, 8])
def test_exchange_never_hurts_and_never_doubles(per_gpu: int) -> None:
    random = np.random.default_rng(per_gpu)
    load = random.lognormal(0, 1, (20, 6 * per_gpu - 7))
    counts = replica_counts(load, 6 * per_gpu, 6)
    start = deal(load, counts, 6, True)
    done = exchange(start, load.sum(axis=1) / 6, True, 40)
    assert (done.top <= start.top * (1 + 1e-12)).all()
    ordered = np.sort(done.expert, axis=2)
    assert not (ordered[..., 1:] == ordered[..., :-1]).any()
    assert_whole(done.expert, load, done.value)


def test_dealing_keeps_copies_apart_even_at_the_cap() -> None:
    load = np.array([[100.0, 90.0, 1.0, 1.0], [7.0, 7.0, 7.0, 7.0]])
    counts = np.array([[4, 4, 2, 2], [3, 3, 3, 3]])
    packing = deal(load, counts, 4, True)
    for row in packing.expert:
        assert all(len(set(room)) == 3 for room in row.tolist())


def test_copies_allowed_is_never_above_longest_first() -> None:
    random = np.random.default_rng(8)
    load = random.lognormal(0, 0.6, (30, 32))
    counts = replica_counts(load, 40, 40)
    plain = longest_first(load, counts, 8).top
    bound = flat_bound(load, 8, 40, 40)
    done = solve_rows(load, Bins(8, 40, False), bound, Effort(restarts=2))
    assert (done.top <= plain * (1 + 1e-12)).all()


def test_same_seed_same_plan() -> None:
    load = np.random.default_rng(1).lognormal(0, 1, (5, 12))
    bins = Bins(4, 16, True)
    bound = flat_bound(load, 4, 16, 4)
    first, second = (
        solve_rows(load, bins, bound, Effort(seed=9)).expert for _ in range(2)
    )
    assert (first == second).all()


def test_stopped_enumeration_keeps_a_valid_bound() -> None:
    load = np.array([9.0, 7.0, 6.0, 5.0, 3.0, 2.0, 2.0, 1.0])
    spent = FAST.deadline.after(0.0, clock=lambda: 0.0)
    bins = Bins(4, 12, True)
    _, bound = exact_row(load, bins, 1e9, 0.0, spent)
    found, best = exact_row(load, bins, 1e9, 0.0, FAST.deadline)
    assert found is not None
    assert bound <= best * (1 + 1e-9)
