"""Local search on one layer from a given map: several load tables, few moves.

The state is expert ids [G, S]. Steps swap two slots, or give a slot that holds a
spare copy to another expert. The score over scenarios k and GPUs g is a high power
mean of load_kg / mean_k, which follows the maximum and sees ties. A move is an expert
on a GPU that did not hold it in the starting map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .effort import Deadline
from .pack import Bools
from .replicate import Floats, Ints

Robust = Literal["worst", "mean"]
_POWER = 24.0
_GAIN = 1e-7
_SHORT = 512


@dataclass(frozen=True)
class Rules:
    """What a step may do.

    target: stop once the busiest GPU (worst or mean over scenarios, mean load 1) is
    at or below it. budget: most moves, or None. node_of: [E, N] nodes that an expert
    may live on. transfers: whether copy numbers may change. within_node: swaps stay
    on a node, which keeps what static dispatch relies on.
    """

    target: float
    budget: int | None
    distinct: bool
    node_of: Bools
    transfers: bool = True
    within_node: bool = False
    robust: Robust = "worst"
    steps: int = 400


@dataclass
class _State:
    """A map with what is derived from it; loads [K, E] have mean GPU load 1."""

    load: Floats
    expert: Ints
    home: Bools
    counts: Ints
    value: Floats

    @classmethod
    def of(cls, load: Floats, expert: Ints) -> _State:
        experts = load.shape[1]
        home = np.zeros((experts, expert.shape[0]), dtype=bool)
        home[expert, np.arange(expert.shape[0])[:, None]] = True
        state = cls(load, expert.copy(), home, np.empty(0, np.int64), np.empty(0))
        state.refresh()
        return state

    def refresh(self) -> None:
        """Copy numbers and GPU loads [K, G] from the map."""
        self.counts = np.bincount(self.expert.ravel(), minlength=self.load.shape[1])
        share = self.load / np.maximum(self.counts, 1)
        self.value = share[:, self.expert].sum(axis=2)

    def held(self) -> Ints:
        """How often each expert sits on each GPU, [E, G]."""
        held = np.zeros(self.home.shape, dtype=np.int64)
        gpus = np.broadcast_to(
            np.arange(self.expert.shape[0])[:, None], self.expert.shape
        )
        np.add.at(held, (self.expert, gpus), 1)
        return held


def true_top(value: Floats, robust: Robust) -> float:
    """Busiest GPU of [K, G]: the worst scenario's, or the mean over scenarios."""
    top = value.max(axis=1)
    return float(top.max() if robust == "worst" else top.mean())


def moved(held: Ints, home: Bools) -> int:
    """Experts on GPUs that did not hold them before."""
    return int(((held > 0) & ~home).sum())


def refine_layer(load: Floats, start: Ints, rules: Rules, deadline: Deadline) -> Ints:
    """The best map [G, S] found from `start`; load [K, E] with mean GPU load 1.

    Raises ValueError if a copy that is doubled on a GPU cannot be moved away within
    the budget although `distinct` asks for it.
    """
    state = _State.of(load, start)
    if rules.distinct:
        _undouble(state, rules)
    best, top = state.expert.copy(), true_top(state.value, rules.robust)
    for _ in range(rules.steps):
        if top <= rules.target or deadline.expired():
            break
        if not _step(state, rules):
            break
        now = true_top(state.value, rules.robust)
        if now < top:
            best, top = state.expert.copy(), now
    return best


def _score(value: Floats, robust: Robust) -> Floats:
    """Power mean over the last axes of [C, K, G]: one number per candidate."""
    power = (value**_POWER).mean(axis=2)
    if robust == "worst":
        worst: Floats = power.mean(axis=1) ** (1 / _POWER)
        return worst
    inner: Floats = (power ** (1 / _POWER)).mean(axis=1)
    return inner


@dataclass(frozen=True)
class _Steps:
    """Candidate steps: loads after each [C, K, G], moves added [C], (slot, expert)s."""

    value: Floats
    cost: Ints
    slots: Ints
    experts: Ints


def _step(state: _State, rules: Rules) -> bool:
    """Take the step with the best gain per move; False if none gains."""
    held = state.held()
    options = [_swaps(state, rules, held)]
    if rules.transfers:
        options.append(_transfers(state, rules, held))
    used = moved(held, state.home) if rules.budget is not None else 0
    now = _score(state.value[None], rules.robust)[0]
    best_gain, chosen = 0.0, None
    for steps in options:
        if steps.cost.size == 0:
            continue
        gain = np.log(now / _score(steps.value, rules.robust))
        if rules.budget is not None:
            gain = np.where(used + steps.cost <= rules.budget, gain, -1.0)
            gain = gain / np.clip(steps.cost, 0.5, None)
        pick = int(gain.argmax())
        if gain[pick] > max(best_gain, _GAIN):
            best_gain, chosen = float(gain[pick]), (steps, pick)
    if chosen is None:
        return False
    steps, pick = chosen
    state.expert.ravel()[steps.slots[pick]] = steps.experts[pick]
    state.refresh()
    return True


def _critical(state: _State) -> tuple[int, int]:
    """Scenario and GPU of the largest load."""
    k, g = np.unravel_index(int(state.value.argmax()), state.value.shape)
    return int(k), int(g)


def _allowed(rules: Rules, state: _State, expert: Ints, gpu: Ints) -> Bools:
    """Whether an expert's node rule admits a GPU."""
    per_node = state.expert.shape[0] // rules.node_of.shape[1]
    fine: Bools = rules.node_of[expert, gpu // per_node]
    return fine


def _swaps(state: _State, rules: Rules, held: Ints) -> _Steps:
    """Swaps of a slot on the critical GPU with a lighter one elsewhere."""
    k, g = _critical(state)
    per_gpu = state.expert.shape[1]
    flat = state.expert.ravel()
    here = g * per_gpu + np.arange(per_gpu)
    there = np.flatnonzero(np.arange(flat.size) // per_gpu != g)
    i, j = (x.ravel() for x in np.meshgrid(here, there, indexing="ij"))
    a, b, gpu = flat[i], flat[j], j // per_gpu
    share = state.load / np.maximum(state.counts, 1)
    drop = share[:, a] - share[:, b]
    home = np.full(gpu.size, g)
    fine = (drop[k] > 0) & _allowed(rules, state, a, gpu)
    fine &= _allowed(rules, state, b, home)
    if rules.within_node:
        per_node = state.expert.shape[0] // rules.node_of.shape[1]
        fine &= gpu // per_node == g // per_node
    if rules.distinct:
        fine &= (held[a, gpu] == 0) & (held[b, g] == 0)
    keep = np.flatnonzero(fine)
    guess = np.maximum(
        state.value[k, g] - drop[k, keep], state.value[k, gpu[keep]] + drop[k, keep]
    )
    keep = keep[np.argsort(guess, kind="stable")[:_SHORT]]
    a, b, gpu, drop = a[keep], b[keep], gpu[keep], drop[:, keep]
    value = np.repeat(state.value[None], keep.size, axis=0)
    index = np.arange(keep.size)
    value[index, :, g] -= drop.T
    value[index, :, gpu] += drop.T
    home = home[keep]
    cost = _arrives(state, held, a, gpu) + _arrives(state, held, b, home)
    cost -= _leaves(state, held, a, home) + _leaves(state, held, b, gpu)
    slots = np.stack([i[keep], j[keep]], axis=1)
    return _Steps(value, cost, slots, np.stack([b, a], axis=1))


def _arrives(state: _State, held: Ints, expert: Ints, gpu: Ints) -> Ints:
    """1 where an expert on a GPU would be a newcomer, [C]."""
    new = ~state.home[expert, gpu] & (held[expert, gpu] == 0)
    out: Ints = new.astype(np.int64)
    return out


def _leaves(state: _State, held: Ints, expert: Ints, gpu: Ints) -> Ints:
    """1 where the last copy of a newcomer would go again, [C]."""
    gone = ~state.home[expert, gpu] & (held[expert, gpu] == 1)
    out: Ints = gone.astype(np.int64)
    return out


def _transfers(state: _State, rules: Rules, held: Ints) -> _Steps:
    """Spare copies given to another expert: anything that relieves the critical GPU."""
    _, g = _critical(state)
    per_gpu = state.expert.shape[1]
    flat = state.expert.ravel()
    spare = np.flatnonzero(state.counts[flat] > 1)
    on_it = np.unique(state.expert[g])
    local = spare[spare // per_gpu == g]
    every = np.arange(state.load.shape[1])
    s1, b1 = (x.ravel() for x in np.meshgrid(spare, on_it, indexing="ij"))
    s2, b2 = (x.ravel() for x in np.meshgrid(local, every, indexing="ij"))
    slot, expert = np.concatenate([s1, s2]), np.concatenate([b1, b2])
    return _transfer_steps(state, rules, held, slot, expert)


def _transfer_steps(
    state: _State, rules: Rules, held: Ints, slot: Ints, expert: Ints
) -> _Steps:
    """The admissible ones of the given (slot, new expert) transfers."""
    per_gpu = state.expert.shape[1]
    old, gpu = state.expert.ravel()[slot], slot // per_gpu
    fine = (old != expert) & _allowed(rules, state, expert, gpu)
    fine &= state.counts[old] > 1
    if rules.distinct:
        fine &= held[expert, gpu] == 0
    slot, expert, old, gpu = slot[fine], expert[fine], old[fine], gpu[fine]
    index = np.arange(slot.size)
    less = state.load[:, old] / np.maximum(state.counts[old] - 1, 1)
    more = state.load[:, expert] / (state.counts[expert] + 1)
    was_old = state.load[:, old] / np.maximum(state.counts[old], 1)
    was_new = state.load[:, expert] / np.maximum(state.counts[expert], 1)
    value = state.value[None] + (
        (less - was_old).T[:, :, None] * held[old][:, None, :]
        + (more - was_new).T[:, :, None] * held[expert][:, None, :]
    )
    value[index, :, gpu] += (more - less).T
    cost = _arrives(state, held, expert, gpu) - _leaves(state, held, old, gpu)
    return _Steps(value, cost, slot[:, None], expert[:, None])


def _undouble(state: _State, rules: Rules) -> None:
    """Give the second copy of an expert on one GPU to the expert that gains most."""
    while True:
        held = state.held()
        doubled = np.argwhere(held > 1)
        if doubled.size == 0:
            return
        expert, gpu = doubled[0]
        seat = int(np.flatnonzero(state.expert[gpu] == expert)[-1])
        slot = gpu * state.expert.shape[1] + seat
        every = np.arange(state.load.shape[1])
        steps = _transfer_steps(state, rules, held, np.full(every.size, slot), every)
        used = moved(held, state.home)
        score = _score(steps.value, rules.robust)
        if rules.budget is not None:
            score = np.where(used + steps.cost <= rules.budget, score, np.inf)
        if score.size == 0 or not np.isfinite(score).any():
            raise ValueError(
                f"max_moves: found {rules.budget}, too few to separate the copies that "
                f"share a GPU in `current` (expert {expert} on GPU {gpu})"
            )
        pick = int(score.argmin())
        state.expert.ravel()[steps.slots[pick]] = steps.experts[pick]
        state.refresh()
