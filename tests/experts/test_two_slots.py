"""Hall's conditions at two slots per GPU: same optimum as enumeration, valid proofs."""

from __future__ import annotations

import numpy as np
import pytest

from shardwright.experts.bounds import flat_bound
from shardwright.experts.certify import certify_two_slots
from shardwright.experts.effort import Effort
from shardwright.experts.exact import count_vectors
from shardwright.experts.replicate import replica_counts
from shardwright.experts.two_slots import fold_value, reach


@pytest.mark.parametrize("seed", range(6))
def test_certificate_brackets_the_best_fold(seed: int) -> None:
    random = np.random.default_rng(seed)
    load = random.integers(1, 300, 7).astype(float)
    vectors = count_vectors(7, 12, 12)
    best = fold_value(np.broadcast_to(load, vectors.shape), vectors).min()
    counts = replica_counts(load[None], 12, 12)[0]
    low = float(flat_bound(load[None], 6, 12, 12)[0])
    effort = Effort(tolerance=1e-4, workers=1, proof_s=20.0)
    done = certify_two_slots(load, 12, counts, low, effort)
    assert done.bound <= best * (1 + 1e-9) <= done.value * (1 + 2e-9)
    assert done.value <= done.bound * (1 + 1.1e-4)


def test_reach_agrees_with_enumeration_on_both_sides() -> None:
    load = np.array([40.0, 33.0, 21.0, 13.0, 8.0, 5.0])
    vectors = count_vectors(6, 10, 10)
    best = fold_value(np.broadcast_to(load, vectors.shape), vectors).min()
    effort = Effort(workers=1)
    above = reach(load, 10, best * 1.0001, None, effort)
    assert above.counts is not None and above.counts.sum() == 10
    assert fold_value(load[None], above.counts[None])[0] <= best * 1.0001
    below = reach(load, 10, best * 0.9999, None, effort)
    assert below.counts is None and below.proven


def test_a_window_proves_nothing() -> None:
    load = np.array([10.0, 10.0, 1.0, 1.0])
    answer = reach(load, 6, 5.5, 1, Effort(workers=1))
    assert answer.counts is None or answer.counts.sum() == 6
    if answer.counts is None:
        assert not answer.proven
