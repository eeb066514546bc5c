"""All tables of the expert placement, printed and written to benchmarks/results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .certificates import certificates
from .dispatched import dispatched
from .drift import drift
from .quality import quality
from .report import Table, write
from .robustness import robustness
from .speed import speed


def main() -> int:
    """0 if every bar holds, 5 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experts")
    parser.add_argument("--quick", action="store_true", help="real tables, few cases")
    parser.add_argument("--layers", type=int, default=3, help="proofs per large case")
    parser.add_argument("--only", nargs="*", default=None, help="names of tables")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    made = []
    for name, make in _tables(asked.quick, asked.layers).items():
        if asked.only is not None and name not in asked.only:
            continue
        made.append(make())
        print(made[-1].text("simple"), flush=True)
    if asked.only is None:
        write(
            made, asked.out, " ".join(["python -m benchmarks.experts", *sys.argv[1:]])
        )
    missed = [bar.claim for table in made for bar in table.bars if not bar.holds]
    return 5 if missed else 0


def _tables(quick: bool, layers: int) -> dict[str, Callable[[], Table]]:
    """Tables by name, in the order of the report."""
    return {
        "quality": lambda: quality(quick),
        "certificates": lambda: certificates(quick, 1 if quick else layers),
        "speed": lambda: speed(quick, 9),
        "dispatched": dispatched,
        "drift": lambda: drift(quick, 3 if quick else 8),
        "robustness": robustness,
    }


if __name__ == "__main__":
    sys.exit(main())
