"""Thousands of instances: ``python -m tests.fuzz --count 5000 --seed 0``.

Every disagreement is written to tests/regressions/ and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import perf_counter

from tests.agreement import Verdict, agree_job

FEWEST = 0.25
"""Least share of feasible and of infeasible instances; less would be vacuous."""


@dataclass
class Tally:
    """Counts over a run."""

    feasible: int = 0
    infeasible: int = 0
    failures: list[str] = field(default_factory=list)
    unproven: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        """Count one instance; keep it when the solvers disagree."""
        self.feasible += verdict.feasible
        self.infeasible += not verdict.feasible
        for name in verdict.unproven:
            self.unproven[name] = self.unproven.get(name, 0) + 1
        for name, spent in verdict.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        if verdict.complaints:
            path = verdict.write()
            self.failures += [f"{path.name}: {c}" for c in verdict.complaints]

    def balanced(self) -> bool:
        """Whether both kinds of instance are common enough to mean something."""
        return min(self.feasible, self.infeasible) >= FEWEST * (
            self.feasible + self.infeasible
        )

    def report(self) -> str:
        """What is printed."""
        count = max(1, self.feasible + self.infeasible)
        times = (f"{n} {1000 * s / count:.1f} ms" for n, s in self.seconds.items())
        return "\n".join(
            [
                f"{count} instances: {self.feasible} feasible, "
                f"{self.infeasible} infeasible",
                f"mean time: {', '.join(times)}",
                f"without proof in time: {self.unproven or 'none'}",
                f"disagreements: {len(self.failures)}",
                *self.failures,
            ]
        )


def main(arguments: list[str] | None = None) -> int:
    """Run, report, and say by the exit status whether all agreed."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--time-limit", type=float, default=10.0, help="per solve, s")
    parser.add_argument("--solvers", default="default,direct", help="comma-separated")
    asked = parser.parse_args(arguments)
    solvers = asked.solvers.split(",")
    seeds = range(asked.seed, asked.seed + asked.count)
    jobs = [(seed, solvers, asked.time_limit) for seed in seeds]
    tally, begun = Tally(), perf_counter()
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
        for i, verdict in enumerate(pool.map(agree_job, jobs, chunksize=8), start=1):
            tally.add(verdict)
            if i % 500 == 0:
                print(
                    f"{i} done, {len(tally.failures)} disagreements, "
                    f"{perf_counter() - begun:.0f} s",
                    file=sys.stderr,
                )
    print(tally.report())
    return 0 if tally.balanced() and not tally.failures else 1


if __name__ == "__main__":
    sys.exit(main())
