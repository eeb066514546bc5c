"""``shardwright audit`` as a user runs it, and the public function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import shardwright as sw
from shardwright.cli.app import app

SEEDS = Path(__file__).parents[2] / "instances" / "seeds"
INSTANCE = SEEDS / "moe-30b-16gpu.yaml"
CLAIMS = SEEDS / "claims" / "moe-30b-16gpu-analysis.yaml"
HEAD = 'schema_version: "1.0"\ndocument: d\nclaims:\n'


def run(*arguments: str | Path) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def written(folder: Path, *lines: str) -> Path:
    """A file of claims."""
    path = folder / "claims.yaml"
    path.write_text(HEAD + "\n".join(f"  - {line}" for line in lines) + "\n")
    return path


def test_wrong_claims_are_exit_code_5(tmp_path: Path) -> None:
    page = tmp_path / "audit.md"
    done = run(INSTANCE, CLAIMS, "--markdown", page)
    assert done.exit_code == 5
    assert done.stdout.splitlines()[1].startswith("74 claims: 1 wrong, 3 contradicted")
    assert page.read_text().startswith("# LLM Parallel Strategy Deployment Analysis")


def test_json_is_a_list_of_findings() -> None:
    done = run(INSTANCE, CLAIMS, "--json")
    found = json.loads(done.stdout)
    keys = ["id", "quote", "claimed", "computed", "verdict", "derivation"]
    assert all(list(item) == keys for item in found)
    by_id = {item["id"]: item for item in found}
    assert by_id["headroom"]["verdict"] == "wrong"
    assert by_id["headroom"]["computed"] == "48.44%"


def test_right_claims_are_exit_code_0(tmp_path: Path) -> None:
    claim = "{id: a, line: 1, quote: q, type: fact, figure: gpus, claimed: 16 GPUs}"
    done = run(INSTANCE, written(tmp_path, claim))
    assert done.exit_code == 0
    assert "1 claim: 0 wrong" in done.stdout


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("{id: a, line: 1, quote: q, type: nothing, claimed: 1}", "claims.0.type"),
        ("{id: a, line: 1, quote: q, type: fact, figure: gpus, claimed: 1 foo}",
         "claims.0.claimed"),
        ("{id: a, line: 1, quote: q, type: fact, figure: gpus, claimed: 1 GPU, b: 2}",
         "fields here are id, line, quote, tolerance, against, note, claimed, type"),
        ("{id: a, line: 1, quote: q, type: gpus, strategy: TP2-, claimed: 1 GPU}",
         "claims.0.strategy"),
        ("{id: a, line: 1, quote: q, type: fact, figure: gpus, claimed: 1 s}",
         "claims.a.claimed"),
    ],
)  # fmt: skip
def test_bad_claims_are_refused_by_field(
    tmp_path: Path, claim: str, words: str
) -> None:
    done = run(INSTANCE, written(tmp_path, claim))
    assert done.exit_code == 2
    assert words in done.stderr
    assert not done.stdout


def test_a_page_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    done = run(INSTANCE, CLAIMS, "--markdown", tmp_path / "none" / "audit.md")
    assert done.exit_code == 2
    assert "--markdown" in done.stderr


def test_the_public_function_takes_a_path_or_a_document() -> None:
    instance = sw.load(INSTANCE)
    report = sw.audit(instance, CLAIMS)
    assert report.as_list() == sw.audit(instance, sw.load_claims(CLAIMS)).as_list()
    assert not report.ok
    assert {f.verdict for f in report.fallen} == {"wrong", "contradicted"}
