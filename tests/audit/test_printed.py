"""Figures as printed, and names of strategies."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from shardwright.schema.printed import BANDWIDTH, COUNT, UNITS, in_unit, parse_printed
from shardwright.schema.strategy_name import Strategy, parse_strategy


@pytest.mark.parametrize(
    ("text", "low", "half", "relation"),
    [
        ("17.5 GB", 17_500_000_000, 50_000_000, "="),
        ("~17.5 GB", 17_500_000_000, 50_000_000, "="),
        ("35 GB", 35 * 10**9, 5 * 10**8, "="),
        ("140GB", 140 * 10**9, 5 * 10**9, "="),
        ("20 GiB", 20 * 2**30, 2**30, "="),
        ("18%", Fraction(18, 100), Fraction(1, 200), "="),
        ("<5%", Fraction(1, 20), Fraction(1, 200), "<"),
        ("≤10 s", 10, Fraction(1, 2), "<="),
        ("10+ RPS", 10, Fraction(1, 2), ">="),
        ("900 Gbps", Fraction(900 * 10**9, 8), Fraction(45 * 10**9, 8), "="),
        ("8 GPUs", 8, 0, "="),
        ("~20,000 tokens", 20_000, 1000, "="),
        ("128,256 tokens", 128_256, 0, "="),
        ("70 billion parameters", 70 * 10**9, Fraction(35, 10) * 10**9, "="),
        ("480,000 tokens/ms", 480_000_000, 5_000_000, "="),
        ("0.0", 0, Fraction(1, 20), "="),
    ],
)
def test_value_and_precision(
    text: str, low: Fraction | int, half: Fraction | int, relation: str
) -> None:
    printed = parse_printed(text)
    assert (printed.low, printed.half, printed.relation) == (low, half, relation)


@pytest.mark.parametrize("number", [10, 20, 60, 900, 1200, 28_000, 480_000])
def test_zeros_that_hold_a_place_are_worth_five_percent_at_most(number: int) -> None:
    printed = parse_printed(f"{number} ms")
    assert Fraction(1, 2000) <= printed.half <= max(printed.low / 20, Fraction(1, 2000))


def test_ranges_and_units() -> None:
    printed = parse_printed("20-40 ms")
    assert (printed.low, printed.high) == (Fraction(20, 1000), Fraction(40, 1000))
    assert printed.is_range
    assert UNITS["Gbps"].dimension == UNITS["GB/s"].dimension == BANDWIDTH
    assert UNITS["%"].dimension == COUNT
    assert in_unit(Fraction(1), UNITS["GPUs"]) == "1 GPU"
    assert in_unit(Fraction(3, 7), UNITS["%"]) == "42.86%"
    assert in_unit(Fraction(488_281), UNITS["tokens"]) == "488,281 tokens"


@pytest.mark.parametrize(
    "text", ["", "GB", "17.5 QB", "40-20 ms", "1 2 GB", "1e99 GB", "9" * 30]
)
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="found"):
        parse_printed(text)


@pytest.mark.parametrize(
    "text",
    [
        "TP2-PP4-DP1",
        "PP(4) \u00d7 TP(2) \u00d7 DP(1)",
        "TP=2, PP=4, DP=1",
        "TP2*PP4*DP1",
        "tp 2 / pp 4 / dp 1",
        "DP1+PP4+TP2",
        "TP:2 PP:4 DP:1",
        "TP2\u2013PP4\u2013DP1",
        "TP2 and PP4 and DP1",
    ],
)
def test_usual_notations_of_one_strategy(text: str) -> None:
    assert parse_strategy(text) == Strategy(tp=2, pp=4, dp=1)


def test_degrees_of_experts() -> None:
    assert parse_strategy("EP16\u00d7TP2\u00d7PP8") == Strategy(tp=2, pp=8, ep=16)
    assert parse_strategy("TP2-ADP16-ETP2") == Strategy(tp=2, attn_dp=16, moe_tp=2)
    assert parse_strategy("EP64-TP8-PP2-DP2").product() == 2048


@pytest.mark.parametrize(
    "text", ["", "TP", "TP2-", "TP0", "TP2 TP4", "TP2 x 4", "PP(4", "XP2", "TP2 foo"]
)
def test_what_is_no_strategy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="found"):
        parse_strategy(text)


def test_random_strategies_survive_every_notation() -> None:
    draw = random.Random(5)
    for _ in range(300):
        names = draw.sample(["TP", "PP", "DP", "EP", "CP"], draw.randint(1, 5))
        degrees = {name: draw.choice([1, 2, 3, 8, 16, 640]) for name in names}
        join = draw.choice(["-", " \u00d7 ", ", ", "*", " ", "_", " x "])
        form = draw.choice(["{}{}", "{}({})", "{}={}", "{} {}", "{}: {}"])
        text = join.join(form.format(*item) for item in degrees.items())
        assert parse_strategy(text) == Strategy(
            **{name.lower(): value for name, value in degrees.items()}
        )
