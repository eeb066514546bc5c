"""Many random cases from the command line, counted by what they were."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable


def main(prog: str, compare: Callable[[int], Counter[str]]) -> int:
    """0 if every case agrees; ``compare`` takes a seed and raises where not."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}")
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    seen: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.cases):
        seen += compare(seed)
    for name, count in sorted(seen.items()):
        print(f"{count:6d}  {name}")
    return 0
