"""Claims that nobody would write: a verdict or a refusal, never anything else."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from tests.audit.builders import SEEDS, dense, judged, mixture
from tests.audit.verdicts import REPORTS

from shardwright.audit import load_claims
from shardwright.schema.errors import InvalidInstance

SOLVED = ("feasibility", "optimal", "performance", "all_of")
PRINTS = (
    "0 GB", "0%", "1e9 GB", "17.5 GB", "5 TFLOP/s", "0 tokens/s", "1 GPU", "100%",
    "20-40 ms", "<0 ms", "0.0", "999999999 GB", "3 layers", "0-0", "-1 GB", "1 B",
)  # fmt: skip
STRATEGIES = (
    "TP1000000-PP1000000", "PP81", "TP3", "EP7-TP2", "EP1000000", "CP8", "ETP5-EP3",
    "TP2-ADP3-EP5-PP7", "DP9", "TP2-PP4-DP1-EP1-CP1",
)  # fmt: skip
NUMBERS = (0, -1, 1, 0.5, 10**6, 1e22, "a", "zz", "")


def spoiled(item: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The claim with one or two fields replaced."""
    changed = {**item, "id": "a", "against": ()}
    keys = [k for k in item if k not in ("id", "line", "quote", "type", "against")]
    for key in draw.sample(keys, min(len(keys), draw.randint(1, 2))):
        pool: tuple[Any, ...] = NUMBERS + PRINTS
        if key == "strategy":
            pool = STRATEGIES
        elif key == "claimed":
            pool = PRINTS
        elif key == "where":
            changed[key] = {name: draw.choice(pool) for name in item[key]}
            continue
        changed[key] = draw.choice(pool)
    return changed


def test_spoiled_claims_are_judged_or_refused() -> None:
    draw, counts = random.Random(3), Counter[str]()
    items = [
        claim.model_dump(exclude_none=True)
        for name in REPORTS
        for claim in load_claims(SEEDS / "claims" / f"{name}.yaml").claims
        if claim.type not in SOLVED
    ]
    for _ in range(1500):
        item = spoiled(draw.choice(items), draw)
        instance = draw.choice((dense(), mixture()))
        try:
            counts[judged(instance, item).verdict] += 1
        except InvalidInstance as refused:
            assert refused.errors
            counts["refused"] += 1
    assert sum(counts.values()) == 1500
    assert min(counts[v] for v in ("holds", "wrong", "undecidable", "refused")) > 50
