"""Exit codes, and the one place where an exception becomes one."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardwright.schema.result import Result
    from shardwright.schema.routed import RoutedResult


class ExitCode(IntEnum):
    """What a caller may rely on (docs/cli.md)."""

    DONE = 0
    BAD_INPUT = 2
    VIOLATIONS = 5
    LIMIT = 10
    INFEASIBLE = 20
    UNKNOWN = 30
    INTERNAL = 70
    INTERRUPTED = 130


_BY_STATUS = {
    "OPTIMAL": ExitCode.DONE,
    "FEASIBLE": ExitCode.LIMIT,
    "INFEASIBLE": ExitCode.INFEASIBLE,
    "UNKNOWN": ExitCode.UNKNOWN,
    "INVALID": ExitCode.BAD_INPUT,
    "ERROR": ExitCode.INTERNAL,
}


def result_code(result: Result | RoutedResult) -> ExitCode:
    """The exit code of a result; a plan within the gap asked for is good enough."""
    if result.stopped_by == "user":
        return ExitCode.INTERRUPTED
    if result.status.value == "FEASIBLE" and result.stopped_by == "gap":
        return ExitCode.DONE
    return _BY_STATUS[result.status.value]


@contextmanager
def reported() -> Iterator[None]:
    """Errors made on purpose end in one message and their exit code."""
    # imported here: a command that fails early should not wait for schemas
    from shardwright.schema import errors

    try:
        yield
    except (errors.SolverFailure, errors.CheckFailed) as error:
        _leave(f"internal error: {error}", ExitCode.INTERNAL)
    except errors.ShardwrightError as error:
        _leave(f"error: {error}", ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        _leave("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # the reader has left; a flush at exit would only fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ExitCode.DONE) from None
    except Exception:
        traceback.print_exc()
        _leave(
            "internal error: please report it with the lines above", ExitCode.INTERNAL
        )


def _leave(message: str, code: ExitCode) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(int(code)) from None
