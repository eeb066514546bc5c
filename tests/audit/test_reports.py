"""The five reports, claim by claim, against verdicts derived by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tests.audit.verdicts import FALLEN, HOLDS, REPORTS, UNDECIDABLE

from shardwright.audit import AuditReport, audit, load_claims
from shardwright.audit.report import ORDER
from shardwright.ingest import load

SEEDS = Path(__file__).parents[2] / "instances" / "seeds"
LEAST_CLAIMS = 25


@cache
def report(name: str) -> AuditReport:
    """The audit of one report, once."""
    return audit(
        load(SEEDS / f"{REPORTS[name]}.yaml"), SEEDS / "claims" / f"{name}.yaml"
    )


@pytest.mark.parametrize("name", REPORTS)
def test_every_verdict_is_the_one_derived_by_hand(name: str) -> None:
    found = {f.id: f.verdict for f in report(name).findings}
    expected = {claim: verdict for claim, (verdict, _) in FALLEN[name].items()}
    expected |= dict.fromkeys(UNDECIDABLE[name].split(), "undecidable")
    expected |= dict.fromkeys(HOLDS[name].split(), "holds")
    assert found == expected
    assert len(found) >= LEAST_CLAIMS


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_wrong_comes_with_the_right_figure(name: str) -> None:
    for claim, (_, right) in FALLEN[name].items():
        finding = report(name).finding(claim)
        assert finding.computed == right
        assert finding.derivation
        assert bool(finding.against) == (finding.verdict == "contradicted") or (
            claim in ("all-flags", "calculations")
        )


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_undecidable_says_what_is_missing(name: str) -> None:
    for finding in report(name).of("undecidable"):
        assert "missing: " in finding.derivation or "not disproved: " in (
            finding.derivation
        )
        assert finding.computed is None


@pytest.mark.parametrize("name", REPORTS)
def test_every_file_of_claims_is_audited_here(name: str) -> None:
    files = {path.stem for path in (SEEDS / "claims").glob("*.yaml")}
    assert files == set(REPORTS)
    assert load_claims(SEEDS / "claims" / f"{name}.yaml").claims


@pytest.mark.parametrize("name", REPORTS)
def test_text_and_markdown_have_every_claim(name: str) -> None:
    found, text = report(name), report(name).text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.index("Wrong (") < text.index("Holds (")
    rows = [line for line in found.markdown().splitlines() if line.startswith("| ")]
    assert len(rows) == len(found.findings) + 1
    assert all(row.replace("\\|", "").count("|") == 7 for row in rows)


def test_the_documentation_tells_of_every_claim_that_falls() -> None:
    text = (SEEDS.parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    for name in REPORTS:
        counts = [len(report(name).of(v)) for v in ORDER]
        row = [name, str(len(report(name).findings)), *map(str, counts)]
        assert f"| `{row[0]}` | {' | '.join(row[1:])} |" in text
        for finding in report(name).fallen:
            assert f"`{finding.id}`" in text
            assert str(finding.line) in text


def test_the_strategy_called_infeasible_was_solved() -> None:
    finding = report("llama3-70b-deployment-plan").finding("pure-tp-infeasible")
    assert "8 of 8 GPUs" in finding.derivation
    assert "breaks request_rate" in finding.derivation


def test_another_routing_changes_no_verdict() -> None:
    """What a report leaves open decides nothing, whatever the instance assumes."""
    for name in ("moe-10b-512gpu-validation", "moe-30b-16gpu-analysis"):
        instance = load(SEEDS / f"{REPORTS[name]}-top2.yaml")
        other = audit(instance, SEEDS / "claims" / f"{name}.yaml")
        assert [f.verdict for f in other.findings] == [
            f.verdict for f in report(name).findings
        ]
