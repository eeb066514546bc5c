"""Counted parameters against published totals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from shardwright.ingest import model, names, parameter_count
from shardwright.ingest.catalogue import root
from shardwright.ingest.document import parse, read_file
from shardwright.schema.model import Attention, DenseFfn, LayerKind, ModelSpec

PROVENANCE: dict[str, dict[str, Any]] = parse(
    read_file(root() / "llm" / "PROVENANCE.yaml"), "PROVENANCE.yaml"
)
EXCEPTIONS = {"google--gemma-3-27b-it"}
UNPUBLISHED = {
    "01-ai--Yi-34B": 34_388_917_248,
    "codellama--CodeLlama-34b-Instruct-hf": 33_743_970_304,
    "mistralai--Mistral-Nemo-Instruct-2407": 12_247_782_400,
}


def test_every_model_has_its_provenance() -> None:
    assert set(PROVENANCE) == set(names("llm"))
    assert {row["file"] for row in PROVENANCE.values()} == {"verbatim", "reconstructed"}
    assert all(row["origin"] for row in PROVENANCE.values())


def test_exceptions_are_the_known_ones() -> None:
    assert {n for n, row in PROVENANCE.items() if "exception" in row} == EXCEPTIONS
    unpublished = {
        n for n, row in PROVENANCE.items() if not row.keys() & {"published_total",
        "published_billion"}
    }  # fmt: skip
    assert unpublished == set(UNPUBLISHED)


def rounded(count: int, printed: str) -> Decimal:
    """The count in billions at the digits of the printed figure."""
    return (Decimal(count) / 10**9).quantize(Decimal(printed))


@pytest.mark.parametrize("name", sorted(PROVENANCE))
def test_count_is_the_published_total(name: str) -> None:
    row, count = PROVENANCE[name], parameter_count(model(name))
    if "published_total" in row:
        assert abs(count - row["published_total"]) <= row["published_total"] / 1000
    elif "exception" in row:
        rest = round(Decimal(row["exception"]["uncounted_billion"]) * 10**9)
        assert rounded(count + rest, row["published_billion"]) == Decimal(
            row["published_billion"]
        ), row["exception"]["reason"]
    elif "published_billion" in row:
        assert rounded(count, row["published_billion"]) == Decimal(
            row["published_billion"]
        )
    else:
        assert count == UNPUBLISHED[name]


@pytest.mark.parametrize("name", sorted(PROVENANCE))
def test_exact_totals_agree_to_the_parameter(name: str) -> None:
    total = PROVENANCE[name].get("published_total")
    if total is not None:
        assert parameter_count(model(name)) == total


def spec(tied: bool, bias: bool) -> ModelSpec:
    attention = Attention(
        heads=4, kv_heads=2, head_dim=3, qkv_bias=bias, output_bias=bias,
        qk_norm_width=6,
    )  # fmt: skip
    ffn = DenseFfn(intermediate=7, matrices=2, bias=bias)
    full = LayerKind(name="full", attention=attention, ffn=ffn, norm_width=20)
    bare = LayerKind(name="bare", attention=None, ffn=None, norm_width=0)
    return ModelSpec(
        name="tiny", hidden=10, vocabulary=100, tied_embeddings=tied,
        max_position_tokens=None, final_norm_width=10, layer_kinds=(full, bare),
        layers=("full", "bare", "full"),
    )  # fmt: skip


def test_a_count_by_hand() -> None:
    # q 10*12, k and v 10*6 each, o 12*10; two FFN matrices 10*7; norms 6 + 20
    layer = 120 + 60 + 60 + 120 + 140 + 26
    assert parameter_count(spec(True, False)) == 1000 + 2 * layer + 10
    assert parameter_count(spec(False, False)) == 2000 + 2 * layer + 10
    # biases: q 12, k and v 6 each, o 10; up 7, down 10
    assert parameter_count(spec(True, True)) == 1000 + 2 * (layer + 34 + 17) + 10
