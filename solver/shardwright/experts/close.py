"""Rows with both ends: the best packing found and the best bound proven."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bounds import flat_bound
from .certify import certify_two_slots
from .effort import Deadline, Effort
from .exact import exact_row, small_enough
from .flat import Bins, solve_rows
from .pack import Packing, deal, exchange
from .replicate import Floats, Ints

_TIGHT = 1 + 1e-9


@dataclass(frozen=True)
class Closed:
    """A packing of B rows and a proven bound [B] on each row's busiest GPU."""

    packing: Packing
    bound: Floats


def close_rows(
    load: Floats, bins: Bins, effort: Effort, floor: Floats | None = None
) -> Closed:
    """Search every row of load [B, E], then prove or improve those with a gap.

    Small rows are enumerated; rows with two slots per GPU go through Hall's
    conditions; for the rest the gap stays open and shows. Getting below `floor` [B]
    is of no use to the caller: a row at its floor is done.
    """
    bound = flat_bound(load, bins.gpus, bins.slots, bins.cap)
    goal = bound if floor is None else np.maximum(bound, floor)
    packing = solve_rows(load, bins, goal, effort)
    if effort.restarts:
        finish(load, bins, packing, bound, goal, effort)
    return Closed(packing, bound)


def finish(
    load: Floats,
    bins: Bins,
    packing: Packing,
    bound: Floats,
    goal: Floats,
    effort: Effort,
) -> None:
    """Close rows above their goal in place: better placements and higher bounds."""
    top = packing.top
    small = small_enough(load.shape[1], bins.slots)
    limit = _TIGHT if small else 1 + effort.tolerance
    for row in np.flatnonzero(top > goal * limit):
        if effort.deadline.expired():
            return
        if small:
            limit_s = min(effort.exact_s, effort.deadline.remaining())
            stop = Deadline.after(limit_s, effort.deadline.clock)
            found, bound[row] = exact_row(
                load[row], bins, float(top[row]), float(bound[row]), stop
            )
            if found is not None:
                _set_row(packing, int(row), found, load[row])
        elif bins.folds and effort.proof_s > 0 and load.shape[1] < bins.slots:
            _certify(load[row], bins, packing, bound, int(row), effort)


def _set_row(packing: Packing, row: int, expert: Ints, load: Floats) -> None:
    """Put a placement [G, S] into the packing."""
    counts = np.bincount(expert.ravel(), minlength=load.size)
    packing.expert[row] = expert
    packing.value[row] = (load / np.maximum(counts, 1))[expert]


def _certify(
    load: Floats, bins: Bins, packing: Packing, bound: Floats, row: int, effort: Effort
) -> None:
    """Counts from Hall's conditions, folded; kept where the fold is an advance."""
    counts = np.bincount(packing.expert[row].ravel(), minlength=load.size)
    result = certify_two_slots(load, bins.slots, counts, float(bound[row]), effort)
    bound[row] = result.bound
    folded = deal(load[None], result.counts[None], bins.gpus, bins.distinct)
    if folded.top[0] > result.value * _TIGHT:
        goal = np.array([result.value])
        folded = exchange(folded, goal, bins.distinct, bins.gpus)
    if folded.top[0] < packing.value[row].sum(axis=1).max():
        packing.expert[row], packing.value[row] = folded.expert[0], folded.value[0]
