"""The peer's answers beside ours on the same latencies: ``python -m benchmarks.peer``.

Needs the extra ``silicon``; without it the stored results are printed. Exit code 5 when
a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.peer.cases import cases
from shardwright.cost.aiconfigurator import PACKAGE, RELEASE, installed

RESULTS = Path("benchmarks/results")
HOW = "python -m benchmarks.peer"


def main() -> int:
    """0 if every bar holds or the extra is missing, 5 otherwise."""
    parser = argparse.ArgumentParser(prog=HOW)
    parser.add_argument("--only", nargs="*", default=None, help="names of cases")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if not installed():
        return _stored(asked.out)
    from benchmarks.peer.laws import compare
    from benchmarks.peer.measured import page as against_measurements
    from benchmarks.peer.report import bars, document, page

    found = []
    for case in cases():
        if asked.only is None or case.name in asked.only:
            print(case.name, file=sys.stderr, flush=True)
            found.append(compare(case))
    head = f"# The peer on the same latencies\n\nMade by `{HOW}`.\n\n"
    text = f"{head}{page(found)}\n{against_measurements()}"
    print(text)
    if asked.only is None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "peer.md").write_text(text, encoding="utf-8")
        record = document(found, {"command": HOW, "machine": machine()})
        (asked.out / "peer.json").write_text(json.dumps(record, indent=1) + "\n")
    return 5 if any(not bar.holds for bar in bars(found)) else 0


def _stored(folder: Path) -> int:
    print(f"{PACKAGE} {RELEASE} is not installed (pip install 'shardwright[silicon]').")
    page = folder / "peer.md"
    if page.exists():
        print(f"Stored results, {page}:\n\n{page.read_text(encoding='utf-8')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
