"""Two slots per GPU: for given copies, folding (heaviest with lightest) is optimal.

A copy with more than half of the target T must share a GPU with one of at most T
minus it, and what suits a heavy copy suits a lighter one. Hence T is reached exactly
if, for every heavy value x, at most as many copies weigh x or more as weigh T - x or
less: Hall's conditions, nested, and linear in the choice of the copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from .effort import Effort
from .pack import copies_in_order
from .replicate import Floats, Ints

_EPS = 1e-9


def fold_value(load: Floats, counts: Ints) -> Floats:
    """Tokens on the busiest GPU after folding the copies of each row, [B].

    Optimal for these counts if copies of an expert may share a GPU, else a bound.
    """
    _, values = copies_in_order(load, counts)
    top: Floats = (values + values[:, ::-1]).max(axis=1)
    return top


@dataclass(frozen=True)
class Choice:
    """An expert takes `copies` copies of `value` tokens each."""

    expert: int
    copies: int
    value: float


def choices(
    load: Floats, slots: int, target: float, window: int | None
) -> list[Choice]:
    """What each expert may take if no copy may exceed the target; [] if nothing fits.

    Every number of copies from the fewest up to what the other experts leave over; a
    window keeps the first window + 1 numbers, which is a restriction.
    """
    least = np.maximum(1, np.ceil(load / target * (1 - _EPS))).astype(int)
    spare = slots - int(least.sum())
    more = spare if window is None else min(spare, window)
    return [
        Choice(expert, copies, float(load[expert]) / copies)
        for expert, low in enumerate(least.tolist())
        for copies in range(low, low + more + 1)
    ]


@dataclass(frozen=True)
class Answer:
    """Counts [E] that meet a target, or the reason why there are none."""

    counts: Ints | None
    proven: bool


def reach(
    load: Floats, slots: int, target: float, window: int | None, effort: Effort
) -> Answer:
    """Copies whose fold stays within the target, by CP-SAT on Hall's conditions.

    A missing answer is a proof only if `proven`: without a window and with the search
    finished.
    """
    from ortools.sat.python import cp_model

    options = choices(load, slots, target, window)
    if not options:
        return Answer(None, proven=True)
    model = cp_model.CpModel()
    taken = [model.new_bool_var("") for _ in options]
    for _, group in groupby(range(len(options)), key=lambda i: options[i].expert):
        model.add_exactly_one([taken[i] for i in group])
    copies = [option.copies for option in options]
    model.add(cp_model.LinearExpr.weighted_sum(taken, copies) == slots)
    _hall_chain(model, options, taken, slots, target)
    solver = cp_model.CpSolver()
    _configure(solver, effort)
    if message := model.validate():
        raise RuntimeError(f"Hall model refused: {message}")
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return Answer(None, proven=window is None)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Answer(None, proven=False)
    counts = np.zeros(load.size, dtype=np.int64)
    for option, take in zip(options, taken, strict=True):
        counts[option.expert] += option.copies * solver.value(take)
    return Answer(counts, proven=True)


def _hall_chain(
    model: Any, options: list[Choice], taken: list[Any], slots: int, target: float
) -> None:
    """Light copies of value <= y, minus heavy copies of value >= T - y, stay >= 0."""
    from ortools.sat.python import cp_model

    events = []
    for option, take in zip(options, taken, strict=True):
        heavy = option.value > target / 2 * (1 + _EPS)
        at = target - option.value if heavy else option.value - 2 * _EPS * target
        events.append((at, heavy, -option.copies if heavy else option.copies, take))
    events.sort(key=lambda event: event[:2])
    surplus, parts, signs = 0, [], []
    for index, (_, heavy, sign, take) in enumerate(events):
        parts.append(take)
        signs.append(sign)
        last = index + 1 == len(events)
        if heavy and (last or not events[index + 1][1]):
            now = model.new_int_var(0, slots, "")
            model.add(cp_model.LinearExpr.weighted_sum(parts, signs) + surplus == now)
            surplus, parts, signs = now, [], []


def _configure(solver: Any, effort: Effort) -> None:
    """Injected limits only; one search is reproducible with one worker."""
    solver.parameters.num_workers = effort.workers
    solver.parameters.random_seed = effort.seed
    solver.parameters.catch_sigint_signal = False
    limit = min(effort.proof_s, effort.deadline.remaining())
    solver.parameters.max_time_in_seconds = limit
