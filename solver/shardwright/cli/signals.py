"""Ctrl-C and SIGTERM ask the search to stop; the best plan is still printed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_PATIENCE = 3


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """An event that SIGINT or SIGTERM sets; the third signal interrupts outright."""
    stop = Event()
    seen = 0

    def ask_to_stop(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        stop.set()
        if seen >= _PATIENCE:
            raise KeyboardInterrupt

    caught = (signal.SIGINT, signal.SIGTERM)
    previous = {s: signal.signal(s, ask_to_stop) for s in caught}
    try:
        yield stop
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
