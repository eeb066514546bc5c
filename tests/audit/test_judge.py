"""Each kind of claim: what holds, what is wrong, and what cannot be known."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from typing import Any, get_args

import pytest
from tests.audit.builders import audited, claims, dense, judged, mixture

from shardwright.audit.evidence import Undecidable
from shardwright.audit.figures import figure
from shardwright.audit.judge import _EVIDENCE, _FINDINGS
from shardwright.audit.load import _kinds
from shardwright.schema.claims import Figure
from shardwright.schema.errors import InvalidInstance


def says(kind: str, claimed: str, **fields: Any) -> dict[str, Any]:
    """A claim."""
    return {"type": kind, "claimed": claimed, **fields}


DENSE_CASES = [
    (says("fact", "8 GPUs", figure="gpus"), "holds", "8 GPUs"),
    (says("fact", "9 GPUs", figure="gpus"), "wrong", "8 GPUs"),
    (says("fact", "900 GB/s", figure="link_bandwidth"), "holds", "900 GB/s"),
    (says("fact", "3600 Gbps", figure="link_bandwidth"), "holds", "3,600 Gbps"),
    (says("fact", "900 Gbps", figure="link_bandwidth"), "wrong", "3,600 Gbps"),
    (says("fact", "64 experts", figure="experts"), "undecidable", None),
    (says("gpus", "8 GPUs", strategy="TP2-PP4"), "holds", "8 GPUs"),
    (says("gpus", "6 GPUs", strategy="TP2-PP4"), "wrong", "8 GPUs"),
    (says("gpus", "2 GPUs", strategy="TP2-PP4", per="stage"), "holds", "2 GPUs"),
    (says("degree", "4", strategy="TP2-PP4", of="pp"), "holds", "4"),
    (says("layers", "20 layers", strategy="PP4"), "holds", "20 layers"),
    (says("layers", "20 layers", strategy="PP3"), "undecidable", None),
    (says("layers", "60-79", strategy="PP4", stage=3), "holds", "60-79"),
    (says("layers", "60-80", strategy="PP4", stage=3), "wrong", "60-79"),
    (says("weights", "141.1 GB", of="model"), "holds", "141.1 GB"),
    (says("weights", "131.4 GB", of="model"), "holds", "141.1 GB"),
    (says("weights", "131.4 GiB", of="model"), "holds", "131.4 GiB"),
    (says("weights", "141.1 GiB", of="model"), "wrong", "131.4 GiB"),
    (says("weights", "150.0 GB", of="model"), "wrong", "141.1 GB"),
    (says("weights", "35 GB", of="gpu", strategy="TP2-PP4"), "wrong", "17.64 GB"),
    (says("weights_imbalance", "<5%", strategy="TP2-PP4"), "holds", "2.978%"),
    (says("weights_imbalance", "<1%", strategy="TP2-PP4"), "wrong", "2.978%"),
    (says("kv_bytes_per_token", "320 KiB"), "holds", "320 KiB"),
    (says("kv_bytes_per_token", "320 KB"), "holds", "327.7 KB"),
    (says("kv_bytes_per_token", "40 KiB", strategy="TP2-PP4"), "holds", "40 KiB"),
    (says("kv_bytes_per_token", "1 KB", strategy="TP2-PP4"), "wrong", "40.96 KB"),
    (
        says("kv_tokens", "488,281 tokens", memory="20 GB", strategy="TP2-PP4"),
        "holds",
        "488,281 tokens",
    ),
    (says("bubble", "43%", stages=4, micro_batches=4), "holds", "42.86%"),
    (says("bubble", "75%", stages=4, micro_batches=4), "holds", "75%"),
    (says("bubble", "25%", stages=4, micro_batches=4), "wrong", "42.86%"),
    (says("bubble", "25%", stages=4, micro_batches=9), "holds", "25%"),
    (says("bubble", "25%", stages=4), "undecidable", None),
    (says("message", "32 MB", of="allreduce", tokens=2048), "holds", "33.55 MB"),
    (says("message", "32 bytes", of="layer"), "wrong", "32,768 bytes"),
    (says("message", "64 KiB", of="layer"), "undecidable", None),
    (
        says("transfer_time", "0.32 ms", bytes="16 MB", bandwidth="400 Gbps"),
        "holds",
        "0.32 ms",
    ),
    (
        says("transfer_time", "0.04 ms", bytes="16 MB", bandwidth="400 Gbps"),
        "wrong",
        "0.32 ms",
    ),
    (
        says("transfer_time", "0.6 ms", bytes="16 MB", bandwidth="400 Gbps", ranks=8),
        "holds",
        "0.56 ms",
    ),
    (says("flop_per_token", "139 GFLOP", of="model"), "holds", "139 GFLOP"),
    (says("flop_per_token", "1 GFLOP", of="experts"), "undecidable", None),
    (
        says("replicas", "1 replica", strategy="TP2-PP4", gpus=8),
        "holds",
        "1 replica",
    ),
    (
        says("link_share", "15%", strategy="TP2-PP4", tokens_per_s="9600 tokens/s"),
        "wrong",
        "<= 1.777%",
    ),
    (
        says("link_share", "1%", strategy="TP2-PP4", tokens_per_s="9600 tokens/s"),
        "undecidable",
        None,
    ),
    (says("open", "2 TB", missing="the host"), "undecidable", None),
]


@pytest.mark.parametrize(("item", "verdict", "computed"), DENSE_CASES)
def test_kinds_on_a_dense_model(
    item: dict[str, Any], verdict: str, computed: str | None
) -> None:
    finding = judged(dense(), item)
    assert (finding.verdict, finding.computed) == (verdict, computed), finding


@pytest.mark.parametrize(
    ("item", "verdict", "computed"),
    [
        (says("experts", "16 experts", strategy="EP4"), "holds", "16 experts"),
        (says("experts", "8 experts", strategy="EP4"), "wrong", "16 experts"),
        (says("experts", "21 experts", strategy="EP3"), "undecidable", None),
        (says("gpus", "8 GPUs", strategy="TP2-EP4-PP2-DP2"), "holds", "8 GPUs"),
        (says("gpus", "32 GPUs", strategy="TP2-EP4-PP2-DP2"), "holds", "32 GPUs"),
        (says("gpus", "12 GPUs", strategy="TP2-EP4-PP2-DP2"), "wrong", "8 GPUs"),
        (
            says("gpus", "8 GPUs", strategy="TP2-EP4-PP2-DP2", layout="separate"),
            "wrong",
            "16 GPUs",
        ),
        (says("gpus", "512 GPUs", strategy="EP16*TP2*PP8"), "wrong", "256 GPUs"),
        (says("gpus", "16 GPUs", strategy="TP2-ADP2-EP4-PP4"), "holds", "16 GPUs"),
        (
            says("replicas", "2 replicas", strategy="TP2-EP4-PP2", gpus=8,
                 layout="separate"),
            "wrong",
            "1 replica",
        ),
    ],
)  # fmt: skip
def test_kinds_on_a_mixture(
    item: dict[str, Any], verdict: str, computed: str | None
) -> None:
    finding = judged(mixture(), item)
    assert (finding.verdict, finding.computed) == (verdict, computed), finding


@pytest.mark.parametrize("name", get_args(Figure))
def test_every_figure_is_found_or_said_to_be_missing(name: str) -> None:
    for instance in (dense(), mixture()):
        try:
            found = figure(instance, name)
        except Undecidable as missing:
            assert str(missing)
        else:
            assert found.source
            assert all(reading.value >= 0 for reading in found.readings)


def test_every_kind_of_claim_is_judged() -> None:
    kinds = {*_EVIDENCE, *_FINDINGS, "all_of", "open"}
    assert kinds == set(_kinds())


def test_a_token_cannot_be_faster_than_its_weights_are_read() -> None:
    for claimed, verdict in (("20 ms", "undecidable"), ("19.9 ms", "wrong")):
        item = says("performance", claimed, metric="tpot", strategy="TP2-PP4")
        assert judged(dense(), item).verdict == verdict
    # TP8 reads the same weights with four times the GPUs at once
    item = says("performance", "6 ms", metric="tpot", strategy="TP8")
    assert judged(dense(), item).verdict == "undecidable"


def test_rates_beyond_the_hardware_are_wrong() -> None:
    for claimed, verdict in (("29 RPS", "wrong"), ("28 RPS", "undecidable")):
        item = says("performance", claimed, metric="requests_per_s", strategy="TP2-PP4")
        assert judged(dense(), item).verdict == verdict
    item = says(
        "performance", "9600 tokens/s", metric="output_tokens_per_s",
        strategy="TP2-PP4",
    )  # fmt: skip
    assert judged(dense(), item).verdict == "wrong"


def test_what_the_document_leaves_open_decides_nothing() -> None:
    item = says("kv_bytes_per_token", "1 KB")
    assert judged(dense(), item).verdict == "wrong"
    left = judged(dense(), item, open=["widths"])
    assert left.verdict == "undecidable"
    assert "missing: widths" in left.derivation
    assert "327.7 KB" in left.derivation


def test_a_stated_tolerance_replaces_the_printed_precision() -> None:
    item = says("weights", "150.0 GB", of="model")
    assert judged(dense(), item).verdict == "wrong"
    assert judged(dense(), {**item, "tolerance": "10%"}).verdict == "holds"


def test_figures_made_of_other_prints_stay_in_their_units() -> None:
    item = says(
        "formula", "35 GB", formula="a + b", where={"a": "17.5 GB", "b": "20 GB"}
    )
    assert judged(dense(), item).verdict == "wrong"


def test_mismatch_with_other_claims_is_a_contradiction() -> None:
    report = audited(
        dense(),
        says("open", "8.5 RPS", missing="the load"),
        says("fact", "8 RPS", figure="request_rate"),
        says("formula", "20%", formula="x / y - 1", where={"x": "a", "y": "b"},
             against=["a", "b"]),
        says("all_of", "all", of=["b", "c"]),
        says("all_of", "all", of=["a", "b"]),
        says("all_of", "all", of=["b"]),
    )  # fmt: skip
    verdicts = ["undecidable", "holds", "contradicted", "contradicted", "undecidable"]
    assert [f.verdict for f in report.findings] == [*verdicts, "holds"]
    assert report.finding("c").computed == "6.25%"
    assert "by a, b" in report.finding("c").derivation
    assert not report.ok


@pytest.mark.parametrize(
    ("formula", "where"),
    [
        ("a +", {}),
        ("a + b", {"a": "1 GB", "b": "1 s"}),
        ("a / b", {"a": 1, "b": 0}),
        ("a ** b", {"a": 1, "b": 2}),
        ("__import__('os')", {}),
        ("a.b", {"a": 1}),
        ("True + 1", {}),
        ("1e60 * 1e60", {}),
        ("1e999 + 1", {}),
        ("x", {"x": "nonsense"}),
        ("(" * 90 + "1" + ")" * 90, {}),
    ],
)
def test_formulas_are_arithmetic_and_nothing_else(
    formula: str, where: dict[str, Any]
) -> None:
    item = says("formula", "1", formula=formula, where=where)
    if set(formula) <= set("(1)"):
        assert judged(dense(), item).verdict == "holds"
        return
    with pytest.raises(InvalidInstance, match=r"claims\.a"):
        judged(dense(), item)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (says("fact", "8 GB", figure="gpus"), "numbers, shares"),
        (says("weights", "35 ms", of="model"), "bytes"),
        (says("bubble", "25%", stages="4 GB"), "dimension"),
        (says("transfer_time", "1 s", bytes="a", bandwidth="1 GB/s"), "another claim"),
    ],
)
def test_units_of_another_kind_are_refused(item: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInstance, match=words):
        judged(dense(), item)


@pytest.mark.parametrize(
    "items",
    [
        ({"id": "a"}, {"id": "a"}),
        ({"against": ["zz"]},),
        ({"against": ["a"]},),
        ({"id": "B"},),
        ({"surprise": 1},),
        ({"line": 0},),
        ({"quote": ""},),
    ],
)
def test_documents_are_strict(items: tuple[dict[str, Any], ...]) -> None:
    base = says("fact", "8 GPUs", figure="gpus")
    with pytest.raises(InvalidInstance):
        claims(*({**base, **item} for item in items))


def printed_percent(share: Fraction, draw: random.Random) -> str:
    """The share in percent, rounded to 0 to 2 digits."""
    return f"{float(100 * share):.{draw.randint(0, 2)}f}%"


def test_no_right_claim_is_called_wrong() -> None:
    """Right figures in any rounding hold; moved by two printed units they fall."""
    draw, counts = random.Random(11), Counter[str]()
    for _ in range(200):
        p, q = draw.randint(2, 16), draw.randint(1, 64)
        share = Fraction(p - 1, q + p - 1)
        text = printed_percent(share, draw)
        digits = len(text.partition(".")[2].rstrip("%"))
        moved = f"{float(text[:-1]) + 2 / 10**digits:.{digits}f}%"
        fields = {"stages": p, "micro_batches": q}
        right = judged(dense(), says("bubble", text, **fields))
        wrong = judged(dense(), says("bubble", moved, **fields))
        assert right.verdict == "holds", (p, q, text)
        # by chance the moved figure may be the share of the work
        if abs(float(Fraction(p - 1, q)) * 100 - float(moved[:-1])) > 1:
            assert wrong.verdict == "wrong", (p, q, moved)
            counts["moved"] += 1
        tp = draw.choice([1, 2, 4, 8])
        gpus = says("gpus", f"{tp * p} GPUs", strategy=f"TP{tp}-PP{p}")
        assert judged(dense(), gpus).verdict == "holds"
        counts["right"] += 2
    assert counts == {"right": 400, "moved": counts["moved"]}
    assert counts["moved"] > 150
