"""``solve --routed`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

L4X8 = str(Path(__file__).parents[2] / "instances" / "routed" / "l4x8_llama30b.json")


def test_the_answer_comes_first_and_the_front_follows(call: Any) -> None:
    done = call("solve", "--routed", L4X8)
    assert done.code == 0
    assert done.stdout.startswith("OPTIMAL  252.649 tokens/s, bound 252.649 (gap 0.0")
    assert "Most flow by depth" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_is_one_document(call: Any) -> None:
    done = call("solve", "--routed", L4X8, "--max-stages", "6", "--json")
    document = json.loads(done.stdout)
    assert (document["max_flow"], document["bound"]) == (252.649846, 252.649846)
    assert document["max_depth"] == 6
    assert document["front"] == []
    assert len(document["intervals"]) >= 6


def test_caps_that_leave_nothing_are_infeasible(call: Any) -> None:
    done = call("solve", "--routed", L4X8, "--max-stages", "3")
    assert done.code == 20
    assert done.stdout.startswith("INFEASIBLE  no route through all layers")


def test_options_that_do_not_go_together_are_refused(call: Any) -> None:
    for arguments in (
        ["solve"],
        ["solve", "x.yaml", "--routed", L4X8],
        ["solve", "x.yaml", "--max-stages", "4"],
        ["solve", "--routed", L4X8, "--fix", "tp=1"],
        ["solve", "--routed", L4X8, "--max-stages", "0"],
        ["solve", "--routed", L4X8, "--max-latency", "5"],
    ):
        done = call(*arguments)
        assert done.code == 2, arguments
        assert "command line is refused" in done.stderr
