"""``python -m benchmarks.certificates``: bounds re-checked without a solver.

Every case is solved, certified and verified; the times are CPU seconds. Targets on
percentiles are no part of certificates: where a file has them, they are read as means,
which the name says.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from tabulate import tabulate

from shardwright.check.certificate import verify
from shardwright.ingest import load
from shardwright.planning.certify import certify
from shardwright.problem import compile_problem
from shardwright.schema.certificate import Certificate
from shardwright.schema.instance import Instance
from shardwright.search import solver
from shardwright.search.base import SearchLimits

from .ladder import instance_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILES = (
    "seeds/llama3-70b-8xh100.yaml",
    "production/llama3.1-405b-16xh100.yaml",
    "production/llama3-70b-6of8xh100-generic.yaml",
    "heterogeneous/llama3-70b-8xh100-8xa100-16xl4.yaml",
)
MIXED = 64
ASKED_S, ASKED_BYTES = 5.0, 50_000


@dataclass(frozen=True)
class Row:
    """One certificate. value and bound: mtok/s."""

    name: str
    links: int
    points: int
    unproved: int
    certify_s: float
    verify_s: float
    bytes: int
    bound: int
    value: int

    @property
    def passed(self) -> bool:
        """Complete, small, and re-checked in time."""
        small = self.bytes <= ASKED_BYTES and self.verify_s <= ASKED_S
        return small and not self.unproved


def _as_means(instance: Instance) -> tuple[Instance, bool]:
    """Goal throughput, the loosest target of each metric as one on the mean."""
    document = instance.model_dump(mode="json", by_alias=True)
    loosest: dict[str, float] = {}
    for target in document["slo"]:
        old = loosest.get(target["metric"], 0.0)
        loosest[target["metric"]] = max(old, target["limit_ms"])
    changed = any(t["percentile"] != "mean" for t in document["slo"])
    document["slo"] = [
        {"metric": metric, "percentile": "mean", "limit_ms": limit}
        for metric, limit in loosest.items()
    ]
    document["objective"] = ["throughput"]
    document["workload"]["request_rate_per_s"] = None
    document["limits"]["survive"] = []
    return Instance.model_validate_json(json.dumps(document)), changed


def measure(name: str, instance: Instance, seconds: float) -> Row:
    """Solve, certify, verify."""
    limits = SearchLimits(time_limit_s=seconds)
    value = solver("default").solve(compile_problem(instance), limits).values[0]
    begun = process_time()
    certificate = certify(instance, SearchLimits(time_limit_s=seconds))
    made = process_time() - begun
    text = certificate.model_dump_json()
    begun = process_time()
    proof = verify(instance, Certificate.model_validate_json(text))
    checked = process_time() - begun
    return Row(
        name,
        proof.links,
        len(certificate.chains),
        len(proof.open),
        round(made, 2),
        round(checked, 2),
        len(text),
        proof.bound or 0,
        value,
    )


def cases() -> dict[str, Instance]:
    """Instances by name."""
    found = {}
    for file in FILES:
        instance, changed = _as_means(load(ROOT / "instances" / file))
        found[f"{instance.name}{' (means)' if changed else ''}"] = instance
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ladder.yaml"
        path.write_text(instance_text(MIXED))
        found[f"ladder-{MIXED}"] = load(path)
    return found


def main() -> int:
    """Print and record; exit code 5 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--time-limit", type=float, default=60.0)
    options = parser.parse_args()
    chosen = {n: i for n, i in cases().items() if options.only in n}
    rows = [measure(n, i, options.time_limit) for n, i in chosen.items()]
    heads = ["case", "links", "points", "unproved", "certify s", "verify s", "bytes"]
    heads += ["bound tok/s", "plan tok/s", "bound/plan", "passed"]
    cells = [
        [
            r.name,
            f"{r.links:,}",
            r.points,
            r.unproved,
            r.certify_s,
            r.verify_s,
            f"{r.bytes:,}",
            f"{r.bound / 1000:,.3f}",
            f"{r.value / 1000:,.3f}",
            f"{r.bound / r.value:.6f}",
            "yes" if r.passed else "no",
        ]
        for r in rows
    ]
    table = tabulate(cells, heads, tablefmt="github", disable_numparse=True)
    print(table)
    if not options.dry:
        head = "# Certificates\n\n`python -m benchmarks.certificates`, CPU seconds.\n\n"
        (RESULTS / "certificates.md").write_text(f"{head}{table}\n")
        record = [{**asdict(r), "passed": r.passed} for r in rows]
        (RESULTS / "certificates.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(r.passed for r in rows) else 5


if __name__ == "__main__":
    sys.exit(main())
