"""Tables: golden texts, their width, and what they must say."""

from __future__ import annotations

import re

import pytest
from tests.conftest import Golden
from tests.plan.fleets import CASES, result, view

from shardwright.check import RULES
from shardwright.plan import PlanView
from shardwright.plan.answer import answer, report_text
from shardwright.plan.compliance import ASKED
from shardwright.plan.groups import ranges
from shardwright.plan.tables import DEFAULT, SAVED, TABLES, chosen, folded
from shardwright.plan.tables.text import cut, figures, grid, short, wrapped
from shardwright.schema.plan import PercentileClaim, ReplicaLoad
from shardwright.schema.result import Conflict, ConflictRule, Status, StoppedBy
from shardwright.schema.workload import SloTarget

WIDTH = 100


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Golden) -> None:
    seen = view(name)
    texts = [f"## {table}\n\n{seen.table(table)}" for table in seen.tables()]
    golden(f"tables-{name}", "\n\n".join(texts))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("table", TABLES)
def test_lines_fit_a_terminal(name: str, table: str) -> None:
    for line in view(name).table(table).splitlines():
        assert len(line) <= WIDTH
        assert line == line.rstrip()


def test_the_answer_comes_first() -> None:
    seen = view("seed")
    assert seen.result is not None
    first = answer(seen.result, seen).splitlines()[0]
    assert first == "OPTIMAL  TP2 PP4 DP1 on 8 of 8 GPUs, proven in 0.25 s"


@pytest.mark.parametrize(
    ("status", "stopped_by", "gap", "words"),
    [
        (Status.FEASIBLE, "time", 0.0123, "gap 1.23%, time limit after 0.25 s"),
        (Status.FEASIBLE, "user", None, "no bound, interrupted after 0.25 s"),
        (
            Status.FEASIBLE,
            "gap",
            0.001,
            "gap 0.10%, within the gap asked for after 0.25 s",
        ),
    ],
)
def test_headlines(
    status: Status, stopped_by: StoppedBy, gap: float | None, words: str
) -> None:
    seen = view("seed")
    found = result(status, stopped_by, bound=7.0, gap=gap)
    again = PlanView(seen.instance, seen.document, found)
    first = answer(found, again).splitlines()[0]
    assert first == f"{status.value}  TP2 PP4 DP1 on 8 of 8 GPUs, {words}"


def test_every_gpu_has_one_row_in_the_matrix() -> None:
    for name in CASES:
        seen = view(name)
        rows = seen.table("gpus").splitlines()[5:]
        ranks = [s.gpus for r in seen.document.replicas() for s in r.stages]
        primary = [row for row in rows if row.endswith(("Primary", "  P"))]
        others = [row for row in rows if row.endswith(("Secondary", "  S"))]
        assert len(primary) + len(others) == sum(map(len, ranks))
        assert len(primary) == len(ranks)


@pytest.mark.parametrize("name", CASES)
def test_a_large_plan_is_folded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alike replicas share rows; the rank of every GPU is a table of its own."""
    listed = view(name).table("gpus")
    assert "ranks" not in view(name).tables()
    assert chosen(view(name), ("ranks", "gpus")) == ["gpus"]
    monkeypatch.setattr(folded, "MOST_ROWS", 0)
    seen = view(name)
    rows = seen.table("gpus").split("\n\n")[1].splitlines()[3:]
    assert len(rows) == sum(len(g.replica.stages) for g in seen.groups)
    assert all(len(line) <= WIDTH for line in seen.table("gpus").splitlines())
    assert "ranks" in seen.tables()
    assert seen.table("ranks") == listed
    assert chosen(seen, SAVED)[-1] == "ranks"


def test_a_mixture_shows_ranks_and_experts() -> None:
    seen = view("experts")
    assert seen.table("summary").startswith(
        "OPTIMAL  TP1 DP16 EP16 PP1 x 1 + TP2 DP1 EP1 MoE-TP2 PP2 x 2 on 24 of 24 GPUs"
    )
    rows = [row.split() for row in seen.table("gpus").splitlines()]
    wide = [row[4:10] for row in rows if row[:1] == ["node-1"]]
    assert wide[0] == ["0", "8", "8", "[0,", "9)", "16-17"]
    narrow = [row[3:10] for row in rows if row[:1] == ["node-2"]]
    assert narrow[7] == ["1", "1", "0", "0", "[5,", "9)", "0-31"]


def test_a_solved_map_is_shown_by_its_slots() -> None:
    seen = view("loads")
    assert "slots 18-26" in seen.table("gpus")
    (found,) = seen.document.expert_map or ()
    row = next(r for r in seen.table("experts").splitlines() if "solved" in r)
    assert row.split()[4:8] == ["32", "9", "4", f"{found.balance:.4f}"]


def test_the_seeds_tables_are_there() -> None:
    assert set(view("seed").tables()) >= set(DEFAULT) - {"idle", "disaggregated"}


def test_idle_gpus_are_all_named() -> None:
    seen = view("mixed")
    text = seen.table("idle")
    for gpu in seen.idle:
        assert re.search(rf"{gpu.node} GPU .*{gpu.gpu}", text)
    assert {gpu.reason for gpu in seen.idle} >= {
        "reserved",
        "failed",
        "spare (spare_gpus: 1)",
    }
    assert "no design uses it better (proven)" in text


def test_an_unknown_table_is_named_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="gpus"):
        view("seed").table("nope")


def test_a_view_without_a_report_has_no_compliance() -> None:
    seen = view("seed")
    bare = PlanView(seen.instance, seen.document)
    assert "compliance" not in bare.tables()
    assert bare.table("compliance") == "The plan has not been checked."


def test_requirements_are_rules_of_the_checker() -> None:
    assert set(ASKED) <= set(RULES)


def test_a_broken_target_is_seen_in_three_places() -> None:
    seen = view("mixed")
    assert re.search("BROKEN:.* tpot_limit", seen.table("summary"))
    assert re.search(r"TPOT\).*50\.00.*NO", seen.table("latency"))
    assert re.search(r"tpot_limit.*BROKEN x\d", seen.table("compliance"))


def test_percentile_targets_stand_beside_what_is_claimed() -> None:
    target = SloTarget(metric="ttft", percentile=99, limit_ms=1500)
    seen = view("seed")
    claim = PercentileClaim(metric="ttft", percentile=99, predicted_ms=812.5)
    load = ReplicaLoad(
        request_rate_per_s=4,
        utilisation=0.5,
        mean_batch=20,
        knife_edge=True,
        percentiles=(claim,),
    )
    replica = seen.document.replicas()[0].model_copy(update={"load": load})
    pool = seen.document.pools[0].model_copy(update={"replicas": (replica,)})
    plan = seen.document.model_copy(update={"pools": (pool,)})
    asked = seen.instance.model_copy(update={"slo": (target,)})
    loaded = PlanView(asked, plan)
    assert re.search(
        r"TTFT\) +P99 +1,500\.00 +1,500\.00 +812\.50", loaded.table("latency")
    )
    assert "Knife edge" in loaded.table("latency")
    assert "TTFT P99 812.5 <= 1,500 ms" in loaded.table("summary")


def test_a_conflict_names_its_rules() -> None:
    rule = ConflictRule(rule="memory_fits", asked="<= 68 GB", best="141.1 GB")
    conflict = Conflict(
        rules=(rule,),
        verified_minimal=True,
        message="The model does not fit.",
        largest_request_rate_per_s=7.1,
    )
    found = result(Status.INFEASIBLE, value=None, bound=None, gap=None)
    text = answer(found.model_copy(update={"conflict": conflict}), None)
    assert text.startswith("INFEASIBLE  no plan, proven in 0.25 s\n\nThe model")
    assert "memory_fits  <= 68 GB  141.1 GB" in text
    assert "Largest request rate that can be held: 7.100/s" in text


def test_a_report_lists_every_violation() -> None:
    seen = view("mixed")
    assert seen.report is not None
    assert report_text(seen.report, []).startswith("The plan holds")
    assert "tpot_limit: over" in report_text(seen.report, ["tpot_limit: over"])


@pytest.mark.parametrize(
    ("indices", "words"), [([0], "0"), ([0, 1, 2, 5], "0-2, 5"), ([], "")]
)
def test_ranges(indices: list[int], words: str) -> None:
    assert ranges(indices) == words


@pytest.mark.parametrize(
    ("value", "words"), [(7.9996, "7.999"), (8.347, "8.347"), (0.0, "0.000")]
)
def test_rates_are_cut(value: float, words: str) -> None:
    assert cut(value, 3) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.5, "0.5000"), (12.345, "12.35"), (123.45, "123.5"), (1e4, "10,000")],
)
def test_figures(value: float, words: str) -> None:
    assert figures(value) == words


def test_names_are_cut_in_the_middle() -> None:
    assert short("node-0", 6) == "node-0"
    assert short("a-long-node-name-17", 10) == "a-lon…e-17"


def test_grids_align() -> None:
    text = grid(["name", "two\nlines"], [["a", "1"], ["long name", "22"]], "lr")
    assert text == (
        "             two\n"
        "name       lines\n"
        "---------  -----\n"
        "a              1\n"
        "long name     22"
    )
    assert grid(["none"], [], "l") == "none\n----"


def test_wrapping_keeps_words_whole() -> None:
    assert wrapped("  x: ", "aa bb cc", 10) == "  x: aa bb\n     cc"
