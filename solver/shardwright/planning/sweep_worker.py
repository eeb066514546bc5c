"""A worker process of a sweep: a task per line in, an outcome per line out.

Run as a module, so that a caller's script is not imported again, from notebooks too.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from shardwright.planning.sweep_points import Task


def main() -> None:
    """Solve what comes until the other side closes."""
    from shardwright.planning.sweep_rows import solved_row

    # what a library prints must not break into the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        outcome = solved_row(Task(**json.loads(line)))
        try:
            answers.write(json.dumps(outcome) + "\n")
            answers.flush()
        except BrokenPipeError:
            return


def encoded(task: Task) -> bytes:
    """A task as its line."""
    return (json.dumps(asdict(task)) + "\n").encode()


if __name__ == "__main__":
    main()
