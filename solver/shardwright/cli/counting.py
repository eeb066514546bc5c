"""Progress of a command that does many things one after the other, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from shardwright.cli.progress import QUIET_S, on_terminal


@contextmanager
def counting(noun: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A callback that counts one more of a total; shows nothing without a terminal."""
    if quiet or not on_terminal():
        yield lambda total: None
        return
    from rich.console import Console

    started, done = monotonic(), 0
    with Console(stderr=True).status(f"{noun}...") as status:

        def one_more(total: int) -> None:
            nonlocal done
            done += 1
            seconds = monotonic() - started
            left = seconds / done * (total - done)
            if seconds >= QUIET_S:
                status.update(
                    f"{done} of {total} {noun}  {seconds:.0f} s, about {left:.0f} left"
                )

        yield one_more
