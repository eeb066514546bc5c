"""Scaling studies: sizes, named plans, refusals."""

from __future__ import annotations

from tests.planning.small import chat

import shardwright as sw
from shardwright.planning.scaling import scale, scale_text
from shardwright.schema.instance import Fix


def test_sizes_up_are_solved_beside_a_named_plan() -> None:
    found = scale(
        chat(), nodes=(2,), layers=(2,), contexts=(2, 64),
        plans=[("tp=8", Fix(tp=8))], time_limit_s=30,
    )  # fmt: skip
    rows = {(row.variant.name, row.plan): row for row in found.rows}
    now, twice = rows["as given", "best"], rows["2x nodes", "best"]
    assert now.total is not None
    assert twice.total is not None
    assert now.ratio == 1
    assert twice.total["gpus_available"] == 2 * now.total["gpus_available"]
    assert twice.ratio is not None
    assert twice.ratio >= 2 - 1e-9
    named = rows["as given", "tp=8"]
    assert named.total is not None
    assert named.total["requests_per_s"] <= now.total["requests_per_s"]
    deeper = rows["2x layers", "best"]
    assert deeper.total is not None
    assert deeper.total["requests_per_s"] < now.total["requests_per_s"]
    assert "positions" in rows["64x context", "best"].variant.refused
    fewest = sw.solve(chat()).result.objectives[0].value
    assert now.fewest is not None
    assert now.fewest.result.objectives[0].value == fewest
    text = scale_text(found)
    assert "refused" in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(found.document()["rows"]) == len(found.rows)


def test_a_named_plan_that_breaks_targets_is_shown_and_marked() -> None:
    tight = tuple(t.model_copy(update={"limit_ms": 6.0}) for t in chat().slo[:1])
    found = scale(
        chat(slo=tight), nodes=(), layers=(), contexts=(),
        plans=[("tp=1", Fix(tp=1))], time_limit_s=30,
    )  # fmt: skip
    best, named = found.rows
    assert best.total is not None
    assert best.broken == ()
    assert named.broken == ("targets",)
    assert "breaks, and is shown without: targets" in scale_text(found)
