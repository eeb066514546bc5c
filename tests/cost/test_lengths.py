"""Moments and KV room: exact rationals, known numbers, and what must not decrease."""

from __future__ import annotations

import json
from fractions import Fraction
from math import isqrt
from random import Random
from typing import Any

import pytest

from shardwright.cost.lengths import (
    RequestMix,
    ceil_div,
    ceil_fraction,
    exact,
    moments,
)
from shardwright.schema.workload import Lengths, Workload


def lengths(**form: Any) -> Lengths:
    return Lengths.model_validate_json(json.dumps(form))


def mix(**fields: Any) -> RequestMix:
    document = {
        "input_tokens": {"constant": 100},
        "output_tokens": {"constant": 20},
        "max_context_tokens": 512,
        **fields,
    }
    return RequestMix.of(Workload.model_validate_json(json.dumps(document)))


def random_lengths(rng: Random) -> dict[str, Any]:
    """A document of one of the three forms."""
    form = rng.randrange(3)
    if form == 0:
        return {"constant": rng.randint(1, 5000)}
    if form == 1:
        return {"mean": rng.randint(1, 5000), "cv": rng.choice((0, 0.3, 1, 2.5))}
    bins = [[rng.randint(1, 5000), rng.choice((1, 2, 0.5))] for _ in range(4)]
    return {"histogram": bins}


def test_a_decimal_is_what_was_written() -> None:
    assert exact(0.85) == Fraction(17, 20)
    assert exact(0.1) + exact(0.2) == exact(0.3)
    assert exact(1e-6) == Fraction(1, 10**6)


def test_rounding_up_is_up() -> None:
    assert [ceil_div(n, 4) for n in (0, 1, 4, 5, -1)] == [0, 1, 1, 2, 0]
    assert ceil_fraction(Fraction(7, 2)) == 4
    assert ceil_fraction(Fraction(8, 2)) == 4


def test_moments_of_every_form() -> None:
    assert moments(lengths(constant=7)) == (7, 49, 343)
    halves = lengths(histogram=[[10, 1], [30, 1]])
    assert moments(halves) == (20, 500, 14_000)
    skewed = lengths(histogram=[[10, 0.1], [40, 0.3]])
    assert moments(skewed) == (Fraction(65, 2), 1225, Fraction(48_250))
    lognormal = lengths(mean=100, cv=0.5)
    spread = Fraction(5, 4)
    assert moments(lognormal) == (100, 10_000 * spread, 10**6 * spread**3)


def test_a_lognormal_without_spread_is_a_constant() -> None:
    assert moments(lengths(mean=37, cv=0)) == moments(lengths(constant=37))


@pytest.mark.parametrize("seed", range(50))
def test_moments_are_exact_and_ordered(seed: int) -> None:
    first, second, third = moments(lengths(**random_lengths(Random(seed))))
    assert all(isinstance(m, Fraction) for m in (first, second, third))
    assert second >= first**2
    assert first * third >= second**2


def test_constant_lengths_by_hand() -> None:
    """Input 100, output 20: 110 tokens resident on average, uniform over 20."""
    m = mix()
    assert m.output_mean == 20
    assert m.prompt_work == 100
    assert m.context_mean == 110
    assert m.context_variance == Fraction(20**2, 12)
    assert m.attended_mean == 50


def test_a_cached_prefix_is_read_but_not_computed() -> None:
    m = mix(prefix_cache_hit_ratio=0.25)
    assert m.prompt_work == 75
    assert m.context_mean == 110
    assert m.attended_mean == Fraction(125, 2)


def test_prompt_tokens_of_a_balanced_iteration() -> None:
    """c = ceil(m L_e / O): five prompt tokens per decoded token here."""
    assert [mix().prompt_tokens(m) for m in (1, 2, 64)] == [5, 10, 320]
    uneven = mix(output_tokens={"constant": 30})
    assert [uneven.prompt_tokens(m) for m in (1, 3)] == [4, 10]


def test_chunks_cover_the_prompt_evenly() -> None:
    m = mix(input_tokens={"constant": 1000})
    assert (m.chunks(512), m.chunk_work(512)) == (2, 500)
    assert (m.chunks(1000), m.chunk_work(1000)) == (1, 1000)
    assert (m.chunks(999), m.chunk_work(999)) == (2, 500)
    assert (m.chunks(300), m.chunk_work(300)) == (4, 250)


@pytest.mark.parametrize("seed", range(50))
def test_chunks_are_within_their_size(seed: int) -> None:
    rng = Random(seed)
    m = mix(input_tokens=random_lengths(rng))
    chunk = rng.randint(1, 3000)
    assert m.chunk_work(chunk) <= chunk
    assert m.chunks(chunk) * m.chunk_work(chunk) >= m.prompt_work
    assert (m.chunks(chunk) - 1) * chunk < m.prompt_work


def test_kv_room_by_hand() -> None:
    """100 sequences: 11,000 tokens + 2.33 sqrt(100 * 400 / 12) = 134.52..."""
    m = mix()
    root = isqrt(233**2 * 100 * 400 // 12 * 10**12 // 100**2)
    assert m.kv_tokens(100) == 11_000 + -(-root // 10**6) == 11_135


def test_kv_room_holds_one_full_context() -> None:
    assert mix().kv_tokens(1) == 512
    assert mix(kv_reserve="max_context").kv_tokens(3) == 3 * 512


@pytest.mark.parametrize("seed", range(50))
def test_kv_room_grows_with_sequences_and_stays_within_full_contexts(
    seed: int,
) -> None:
    rng = Random(seed)
    m = mix(
        input_tokens=random_lengths(rng),
        output_tokens=random_lengths(rng),
        max_context_tokens=rng.choice((4096, 16_384)),
    )
    room = [m.kv_tokens(n) for n in range(1, 65)]
    assert room == sorted(room)
    for n, tokens in enumerate(room, start=1):
        assert m.max_context <= tokens <= n * m.max_context
        assert tokens >= min(n * m.context_mean, n * m.max_context)


def test_kv_room_never_rounds_the_root_down() -> None:
    """room - M E[kv] squared is at least 2.33^2 M Var[kv], in rationals."""
    for seed in range(30):
        rng = Random(seed)
        m = mix(output_tokens=random_lengths(rng), max_context_tokens=10**6)
        for n in (1, 7, 64):
            room = m.kv_tokens(n)
            if m.max_context < room < n * m.max_context:
                spare = room - n * m.context_mean
                need = Fraction(233, 100) ** 2 * n * m.context_variance
                assert spare >= 0
                assert spare**2 >= need
