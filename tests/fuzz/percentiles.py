"""Percentile targets against brute force: ``python -m tests.fuzz.percentiles``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from random import Random
from typing import Any

from tests.agreement import agree_on
from tests.generators import instance_of, random_document

from shardwright.problem import compile_problem

MOST_POINTS = 6


def document(seed: int) -> dict[str, Any]:
    """A random instance with few operating points and targets on TPOT and TTFT."""
    draw, found = Random(seed), random_document(seed)
    found["fix"] = {}
    found["slo"] = [
        _target(draw, "tpot", (50, 90, 99), (2, 5, 10, 40)),
        _target(draw, "ttft", (50, 99), (10, 30, 100, 400)),
    ]
    rate = draw.choice([None, 0.5, 2, 8])
    found["workload"]["request_rate_per_s"] = rate
    found["grid"] = {
        "sequences": sorted({draw.choice([1, 2, 4]), 8}),
        "prefill_chunk_tokens": [draw.choice([64, 256])],
    }
    found["limits"] = {"memory_fraction": found["limits"].get("memory_fraction", 1.0)}
    found["objective"] = ["gpus", "throughput"] if rate else ["throughput", "gpus"]
    return found


def _target(
    draw: Random, metric: str, percentiles: tuple[int, ...], limits: tuple[int, ...]
) -> dict[str, Any]:
    at = draw.choice(percentiles)
    return {"metric": metric, "percentile": at, "limit_ms": draw.choice(limits)}


def small(case: dict[str, Any]) -> bool:
    """Whether brute force is affordable."""
    return len(compile_problem(instance_of(case)).points) <= MOST_POINTS


def main() -> int:
    """Run, report, and say by the exit status whether all agreed."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.percentiles", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="seeds")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    asked = parser.parse_args()
    kinds: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.count):
        case = document(seed)
        if not small(case):
            kinds["left out"] += 1
            continue
        verdict = agree_on(case, ["default"], time_limit_s=60, seed=seed)
        kinds["feasible" if verdict.feasible else "infeasible"] += 1
        kinds["without proof"] += bool(verdict.unproven)
        for complaint in verdict.complaints:
            kinds["complaints"] += 1
            print(f"seed {seed}: {complaint}")
    print(", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    return 1 if kinds["complaints"] else 0


if __name__ == "__main__":
    sys.exit(main())
