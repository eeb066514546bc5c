"""Claims, verdicts and the search for the least count behind benchmarks.moe_seeds."""

from __future__ import annotations

import pytest
from benchmarks.moe_seeds import least
from benchmarks.moe_seeds_page import Claim, read_reports, shown, verdict


@pytest.mark.parametrize(
    ("claimed", "found", "why", "word"),
    [
        (512, 512, "", "right"),
        (60, 60.03, "", "right"),
        (3, 7.2, "", "wrong (+140%)"),
        (120, 6, "", "wrong (-95%)"),
        (0.04, 6.8, "", "wrong (170 times as much)"),
        (480000, 480, "", "wrong (1/1,000 of it)"),
        (0, 1, "", "wrong (0 claimed)"),
        (2, 1, "other units", "not comparable: other units"),
        (None, 1, "", "not comparable: no figure"),
    ],
)
def test_verdict(
    claimed: float | None, found: float | None, why: str, word: str
) -> None:
    assert verdict(claimed, found, why) == word


@pytest.mark.parametrize("fails", [0, 4, 99])
@pytest.mark.parametrize("answer", [100, 101, 137])
def test_least_finds_the_first_count_that_holds(fails: int, answer: int) -> None:
    assert least(lambda n: n >= answer, fails, 1000) == answer


def test_least_gives_up() -> None:
    with pytest.raises(ValueError, match="not with"):
        least(lambda n: False, 0, 64)


def test_arithmetic_of_a_claim() -> None:
    assert Claim("", "", product=(2, 4, 2, 2)).found({}) == 32
    assert Claim("", "", quotient=(240e12, 0.5e9, 1e3)).found({}) == 480
    assert Claim("", "", figure="a").found({"a": 7}) == 7
    assert Claim("", "").found({}) is None


def test_every_claim_is_judged_or_says_why_not() -> None:
    for report in read_reports():
        for claim in report.claims:
            computed = claim.figure or claim.product or claim.quotient
            assert claim.why or (computed and claim.value is not None), claim.what
            assert len(claim.quote) <= 60


def test_shown() -> None:
    assert [shown(None), shown(1059.4), shown(0.06), shown(42.44)] == [
        "-",
        "1,059",
        "0.06",
        "42.44",
    ]
