"""The report's words, its table of rules, and the checker's independence."""

from __future__ import annotations

import ast
import json
import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from tests.check.builders import ONE_STAGE, TWO_STAGES, instance, plan_for

from shardwright.check import RULES, check
from shardwright.check.report import at_least, at_most, equal, written
from shardwright.schema.errors import CheckFailed

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "solver" / "shardwright" / "check").glob("*.py"))
ALLOWED = ("shardwright.schema", "shardwright.check", "shardwright._callable")


def imported(path: Path) -> list[str]:
    """Every module that the file names in an import, wherever it stands."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names.append(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_only_the_documents(path: Path) -> None:
    for name in imported(path):
        own = any(name == room or name.startswith(room + ".") for room in ALLOWED)
        assert own or name.split(".")[0] in sys.stdlib_module_names, name
    text = path.read_text(encoding="utf-8")
    assert "import_module" not in text
    assert "__import__" not in text


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 10


def test_the_table_of_rules_is_the_page() -> None:
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert [(name, statement) for name, statement, _, _ in rows] == list(RULES.items())


def test_statements_are_one_line() -> None:
    assert all(text and "\n" not in text for text in RULES.values())


def test_units_of_the_page_are_the_units_of_the_rows() -> None:
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \| .+? \|$", page, re.MULTILINE)
    units = {name: text.split(", ") for name, text in rows}
    limits = {
        "memory_imbalance": 1,
        "compute_imbalance": 1,
        "communication_share": 1,
        "max_gpus": 8,
        "max_cost_usd_per_hour": 100,
        "max_tensor_parallel": 8,
    }
    metrics = ("ttft", "prefill", "tpot", "itl", "e2e")
    subject = instance(
        {
            "limits": limits,
            "slo": [{"metric": metric, "limit_ms": 1e6} for metric in metrics],
            "workload.request_rate_per_s": 0.001,
            "fix": {"tp": 2, "sequences": 16, "prefill_chunk_tokens": 512},
            "grid": {"sequences": [16], "prefill_chunk_tokens": [512]},
        }
    )
    for row in check(subject, plan_for(subject, TWO_STAGES, ONE_STAGE)).rows:
        assert row.unit in units[row.rule], row


def test_messages() -> None:
    row = at_most("r", "replica 0 stage 2", "memory of each GPU is", 1001, 1000, "B")
    assert row.message() == (
        "replica 0 stage 2: memory of each GPU is 1,001 B; "
        "at most 1,000 B allowed (1 B over)"
    )
    row = at_least("r", "plan", "output rate is", 1999, 2000, "mtok/s")
    assert row.message() == (
        "plan: output rate is 1.999 tokens/s; "
        "at least 2 tokens/s needed (0.001 tokens/s short)"
    )
    row = equal("r", "replica 0", "tpot_ns is", 1_500_000, 1_500_001, "ns", detail="x")
    assert row.message() == (
        "replica 0: tpot_ns is 1.5 ms; must be 1.500001 ms (0.000001 ms off): x"
    )


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "ns", "0 ms"),
        (1, "ns", "0.000001 ms"),
        (12_345_678_901, "ns", "12,345.678901 ms"),
        (Fraction(1, 3), "share", "33.3333 %"),
        (-1, "share", "-100 %"),
        (Fraction(-1, 1000), "share", "-0.1 %"),
        (15_000_000, "micro-USD/h", "15 USD/h"),
        (4096, "tokens", "4,096 tokens"),
        (Fraction(5, 2), "ms", "2.5 ms"),
    ],
)
def test_written(value: int | Fraction, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_rows_hold_the_inequality_they_state() -> None:
    subject = instance({"limits.max_gpus": 3})
    report = check(subject, plan_for(subject, TWO_STAGES))
    row = next(row for row in report.rows if row.rule == "max_gpus")
    assert (row.left, row.relation, row.right, row.slack) == (4, "<=", 3, -1)
    violation = report.violations[0]
    assert (violation.left, violation.right, violation.unit) == (4, 3, "GPU")
    assert report.slack("request_rate") is None


def test_raise_if_bad_lists_every_violation() -> None:
    subject = instance({"limits.max_gpus": 3, "workload.max_batch": 1})
    report = check(subject, plan_for(subject, TWO_STAGES))
    with pytest.raises(CheckFailed) as failure:
        report.raise_if_bad()
    assert failure.value.violations == [
        "batch_limit: replica 0: sequences (M) is 16 sequences; "
        "at most 1 sequences allowed (15 sequences over)",
        "max_gpus: plan: GPUs used are 4 GPU; at most 3 GPU allowed (1 GPU over)",
    ]


def test_report_is_json() -> None:
    subject = instance({"limits.memory_imbalance": 0.1})
    report = check(subject, plan_for(subject, TWO_STAGES))
    document = json.loads(json.dumps(report.as_dict()))
    assert document["ok"] is True
    assert len(document["rows"]) == len(report.rows)
