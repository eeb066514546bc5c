"""The claims of moe_seeds.toml with their verdicts, and the page of moe_seeds."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from math import prod
from operator import truediv
from pathlib import Path
from typing import Any

from tabulate import tabulate

CLAIMS = Path(__file__).parent / "moe_seeds.toml"
TOLERANCE = 0.05


@dataclass(frozen=True)
class Claim:
    """A figure of a report; ``why`` says why no verdict is given."""

    what: str
    quote: str
    value: float | None = None
    figure: str | None = None
    product: tuple[float, ...] = ()
    quotient: tuple[float, ...] = ()
    why: str = ""
    note: str = ""

    def found(self, figures: dict[str, float]) -> float | None:
        """The computed figure beside the claim."""
        if self.product:
            return prod(self.product)
        if self.quotient:
            return reduce(truediv, self.quotient)
        return None if self.figure is None else figures[self.figure]


@dataclass(frozen=True)
class SeedReport:
    """One report: its plan, its claims, the instances made of it."""

    name: str
    title: str
    fix: str
    asked: str
    request_rate_per_s: float
    instances: tuple[str, ...]
    shipped: tuple[str, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Row:
    """A claim beside the computed figure."""

    what: str
    quote: str
    claimed: float | None
    found: float | None
    verdict: str
    note: str


@dataclass(frozen=True)
class OwnPlan:
    """The report's plan on one instance."""

    instance: str
    status: str
    broken: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Best:
    """The best plan of a shipped instance, or why there is none."""

    instance: str
    goals: str
    status: str
    plan: str
    figures: dict[str, float]
    proof: str


@dataclass(frozen=True)
class Need:
    """The least cluster on which the targets hold."""

    instance: str
    nodes: int
    gpus_installed: int
    gpus_used: int
    status: str
    roomy_nodes: int
    roomy_gpus: int
    gpus_reported: int
    plan: str


@dataclass(frozen=True)
class Answer:
    """Everything about one report."""

    report: SeedReport
    own: tuple[OwnPlan, ...]
    best: tuple[Best, ...]
    need: tuple[Need, ...]


def read_reports(path: Path = CLAIMS) -> tuple[SeedReport, ...]:
    """The reports with their claims."""
    with path.open("rb") as file:
        document = tomllib.load(file)
    return tuple(_report(entry) for entry in document["report"])


def _report(entry: dict[str, Any]) -> SeedReport:
    claims = tuple(Claim(**_tuples(claim)) for claim in entry.pop("claim"))
    return SeedReport(**_tuples({**entry, "claims": claims}))


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    """TOML's arrays as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}


def verdict(claimed: float | None, found: float | None, why: str = "") -> str:
    """Right within 5%, else wrong by found / claimed - 1; ``why`` forbids both."""
    if why or claimed is None or found is None:
        return f"not comparable: {why or 'no figure'}"
    if claimed == found:
        return "right"
    if claimed == 0:
        return "wrong (0 claimed)"
    error = found / claimed - 1
    return "right" if abs(error) <= TOLERANCE else f"wrong ({_relative(error)})"


def _relative(error: float) -> str:
    """Percent, or a factor where percent would be hard to read."""
    if error >= 9:
        return f"{error + 1:,.0f} times as much"
    if error <= -0.99:
        return f"1/{1 / (error + 1):,.0f} of it"
    return f"{error:+.0%}"


def shown(number: float | None) -> str:
    """Four digits, whole numbers from 1,000 on."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def as_json(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """All figures, without rounding."""
    return [
        {
            "report": a.report.name,
            **{k: v for k, v in asdict(a).items() if k != "report"},
        }
        for a in answers
    ]


HEAD = """# The mixture-of-experts seed reports

Made by `python -m benchmarks.moe_seeds --out benchmarks/results`; claims in
benchmarks/moe_seeds.toml, instances in instances/seeds. A verdict compares with the
cost model under the instance's assumptions (widths, bandwidths, lengths, routing),
which the reports leave open. Right: within 5%. Wrong: found / claimed - 1."""


def page(answers: Sequence[Answer]) -> str:
    """Everything, as Markdown."""
    return "\n\n".join([HEAD, *(part for a in answers for part in _parts(a))])


def _parts(answer: Answer) -> list[str]:
    report = answer.report
    parts = [f"## {report.title}", f"`--fix {report.fix}`"]
    for own in answer.own:
        broken = "; ".join(own.broken) or "It breaks no rule of the instance."
        parts += [f"### Its own plan on {own.instance}", broken, _claims(own.rows)]
    parts += ["### The best plans of the shipped instances", _bests(answer.best)]
    parts += [f"### GPUs needed for {report.asked}", _needs(answer.need)]
    return parts


def _claims(rows: Sequence[Row]) -> str:
    headers = ("figure", "the report", "claimed", "found", "verdict", "note")
    cells = [
        [r.what, r.quote, shown(r.claimed), shown(r.found), r.verdict, r.note]
        for r in rows
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


SHOWN = {
    "gpus_used": "GPUs",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "tpot_ms": "TPOT ms",
    "ttft_ms": "TTFT ms",
    "memory_gb": "GB per GPU",
    "communication_percent": "communication %",
}


def _bests(bests: Sequence[Best]) -> str:
    headers = ("instance", "goals", "status", "plan", *SHOWN.values(), "proof")
    cells = [
        [b.instance, b.goals, b.status, b.plan]
        + [shown(b.figures.get(name)) for name in SHOWN]
        + [b.proof]
        for b in bests
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def _needs(needs: Sequence[Need]) -> str:
    headers = ("instance", "least nodes", "their GPUs", "fewest GPUs used", "status",
               "claimed", "plan", "fewest GPUs on more nodes (proven)")  # fmt: skip
    cells = [
        [
            n.instance,
            n.nodes,
            n.gpus_installed,
            n.gpus_used,
            n.status,
            n.gpus_reported,
            n.plan,
            f"{n.roomy_gpus} ({n.roomy_nodes} nodes)",
        ]
        for n in needs
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)
