"""Progress of a search on stderr: only on a terminal, only when it takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.status import Status

QUIET_S = 1.0
"""A search that ends sooner shows nothing, and rich is not even imported."""


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A callback for ``on_progress``; None when nothing is to be shown."""
    if quiet or not on_terminal():
        yield None
        return
    line = _Line()
    try:
        yield line.show
    finally:
        line.close()


def on_terminal() -> bool:
    """Whether stderr is read by a person."""
    return sys.stderr.isatty()


class _Line:
    """One line that is rewritten."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._status: Status | None = None

    def show(self, improvement: Any) -> None:
        """Show the value and bound of the first goal."""
        elapsed = monotonic() - self._started
        if elapsed < QUIET_S:
            return
        text = f"{elapsed:5.0f} s  {words(improvement)}"
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()
        self._status.update(text)

    def close(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()


def words(improvement: Any) -> str:
    """Value and bound, as far as they are known."""
    value = getattr(improvement, "value", None)
    bound = getattr(improvement, "bound", None)
    shown = ["-" if x is None else f"{x:,}" for x in (value, bound)]
    return f"best {shown[0]}  bound {shown[1]}"
