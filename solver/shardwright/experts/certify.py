"""Closing the gap of one layer with two slots per GPU: bisection over the target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .effort import Deadline, Effort
from .replicate import Floats, Ints
from .two_slots import fold_value, reach

_WINDOWS = (1, 2, 4)


@dataclass(frozen=True)
class Certified:
    """Counts [E], the fold's value, and a bound on every placement of the layer."""

    counts: Ints
    value: float
    bound: float


def certify_two_slots(
    load: Floats, slots: int, counts: Ints, bound: float, effort: Effort
) -> Certified:
    """Bisect the best reachable target of one row, then prove it from below.

    load [E]. Small windows around the fewest copies find plans in hundredths of a
    second; one search over all numbers of copies then proves value / (1 + tolerance).
    The bound is max(given bound, largest target proven out of reach).
    """
    inner = Deadline.after(
        min(effort.proof_s, effort.deadline.remaining()), effort.deadline.clock
    )
    effort = replace(effort, deadline=inner)
    best, value = counts, float(fold_value(load[None], counts[None])[0])
    floor = bound
    while value > floor * (1 + effort.tolerance / 2) and not inner.expired():
        target = max(floor, (floor * value) ** 0.5)
        found = _search(load, slots, target, effort)
        if found is None:
            floor = target
            continue
        best, value = found, float(fold_value(load[None], found[None])[0])
    return _prove(load, slots, best, value, bound, effort)


def _search(load: Floats, slots: int, target: float, effort: Effort) -> Ints | None:
    """Counts that fold within the target, from growing windows; None if not found."""
    for window in _WINDOWS:
        answer = reach(load, slots, target, window, effort)
        if answer.counts is not None:
            return answer.counts
    return None


def _prove(
    load: Floats, slots: int, counts: Ints, value: float, bound: float, effort: Effort
) -> Certified:
    """Raise the bound to just below the value; a better plan found there is taken."""
    while not effort.deadline.expired():
        target = value / (1 + effort.tolerance)
        if target <= bound:
            break
        answer = reach(load, slots, target, None, effort)
        if answer.counts is None:
            bound = target if answer.proven else bound
            break
        better = float(fold_value(load[None], answer.counts[None])[0])
        if better >= value:
            break
        counts, value = answer.counts, better
    return Certified(np.asarray(counts), value, bound)
