"""What to place where: the inputs of `plan_experts`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .affinity import Traffic
from .bounds import flat_bound
from .dispatch import SglangRule, Split
from .flat import Bins
from .maps import check_map
from .refine import Robust
from .replicate import Floats, Ints


@dataclass(frozen=True)
class ExpertProblem:
    """What to place where; see `plan_experts` for the fields."""

    load: Floats
    gpus: int
    slots: int
    nodes: int
    groups: int | None
    split: Split
    rule: SglangRule
    robust: Robust
    distinct: bool
    current: Ints | None
    max_moves: int | None
    traffic: Traffic | None

    @property
    def bins(self) -> Bins:
        """All GPUs together."""
        return Bins(self.gpus, self.slots, self.distinct)

    @property
    def node_bound(self) -> bool:
        """Whether the plan is made for static dispatch, which ties copies to nodes.

        Not where copies on one GPU are allowed and needed to fill the slots; under the
        older rule only if the spare slots are whole sets of one copy per further node
        and the experts without them divide over the nodes. Otherwise the plan is made
        for an even split and valued under the real one.
        """
        if self.split != "sglang_static":
            return False
        experts = self.load.shape[2]
        if self.rule == "newer":
            room = experts * self.gpus // self.nodes
            return self.distinct or self.slots <= room
        sets, rest = divmod(self.slots - experts, max(1, self.nodes - 1))
        fits = rest == 0 and sets <= experts and (experts - sets) % self.nodes == 0
        return self.nodes > 1 and fits

    @property
    def unit(self) -> Floats:
        """Loads [K, L, E] with a mean GPU load of 1 in each scenario and layer."""
        mean = self.load.sum(axis=2, keepdims=True) / self.gpus
        unit: Floats = self.load / np.where(mean > 0, mean, 1.0)
        return unit

    @property
    def blend(self) -> Floats:
        """One table [L, E]: the loads, or the mean of the scenarios at mean load 1."""
        out: Floats = self.load[0] if len(self.load) == 1 else self.unit.mean(axis=0)
        return out

    @property
    def any_split_bound(self) -> Floats:
        """Bound [L] that holds whatever the split, in the units of max_load."""
        b = self.bins
        unit = self.load if len(self.load) == 1 else self.unit
        each = np.array([flat_bound(t, b.gpus, b.slots, b.cap) for t in unit])
        worst: Floats = (
            each.max(axis=0) if self.robust == "worst" else each.mean(axis=0)
        )
        return worst


def load_tables(load: Any) -> Floats:
    """[K, L, E] of finite numbers >= 0."""
    array = np.asarray(load, dtype=np.float64)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"load: found shape {array.shape}, allowed layers x experts or "
            "scenarios x layers x experts"
        )
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("load: found NaN, infinite or negative, allowed finite >= 0")
    return array


def pair_counts(
    load: Floats, transitions: Any, coactivation: Any, slack: float
) -> Traffic | None:
    """Pair counts with their shapes checked; None if there are none."""
    if transitions is None and coactivation is None:
        return None
    _, layers, experts = load.shape
    pairs = []
    for name, given, depth in (
        ("transitions", transitions, layers - 1),
        ("coactivation", coactivation, layers),
    ):
        shape = (depth, experts, experts)
        array = np.zeros(shape) if given is None else np.asarray(given, np.float64)
        if array.shape != shape or not np.isfinite(array).all() or (array < 0).any():
            raise ValueError(
                f"{name}: found shape {array.shape}, allowed {shape}, finite, >= 0"
            )
        pairs.append(array)
    if not np.allclose(pairs[1], np.swapaxes(pairs[1], 1, 2)):
        raise ValueError("coactivation: found an asymmetric table, allowed symmetric")
    pairs[1] = pairs[1] * (1 - np.eye(experts))
    return Traffic(pairs[0], pairs[1], load.mean(axis=0), slack)


def validate(problem: ExpertProblem) -> None:
    """Refuse sizes that do not fit together."""
    _, layers, experts = problem.load.shape
    for field_name, found in (("gpus", problem.gpus), ("nodes", problem.nodes)):
        if found < 1:
            raise ValueError(f"{field_name}: found {found}, allowed at least 1")
    _multiple("gpus", problem.gpus, problem.nodes, "nodes")
    _multiple("slots", problem.slots, problem.gpus, "gpus")
    most = experts * problem.bins.cap
    if not experts <= problem.slots <= most:
        raise ValueError(
            f"slots: found {problem.slots}, allowed {experts} to {most} "
            f"for {experts} experts on {problem.gpus} GPUs"
        )
    if problem.groups is not None:
        _multiple("groups", problem.groups, problem.nodes, "nodes")
        _multiple("experts", experts, problem.groups, "groups")
        _check_node_slots(problem, experts)
    closed = problem.node_bound and problem.rule == "newer"
    if problem.traffic is not None or closed:
        _multiple("experts", experts, problem.nodes, "nodes")
        _check_node_slots(problem, experts)
    _check_current(problem, layers, experts)


def _check_node_slots(problem: ExpertProblem, experts: int) -> None:
    """A node's copies must fit on its GPUs one each."""
    most = experts * problem.gpus // problem.nodes
    if problem.distinct and problem.slots > most:
        raise ValueError(
            f"slots: found {problem.slots}, allowed at most {most} while an expert "
            "stays on one node and sits on a GPU once"
        )


def _check_current(problem: ExpertProblem, layers: int, experts: int) -> None:
    if problem.max_moves is not None:
        if problem.current is None:
            raise ValueError("max_moves: found without current, allowed beside it")
        if problem.max_moves < 0:
            raise ValueError(f"max_moves: found {problem.max_moves}, allowed >= 0")
    if problem.current is None:
        return
    shape = (layers, problem.slots)
    if problem.current.shape != shape:
        raise ValueError(
            f"current: found shape {problem.current.shape}, allowed {shape}"
        )
    check_map(problem.current, experts, problem.gpus, False, "current")


def _multiple(what: str, found: int, of: int, name: str) -> None:
    if found < 1 or found % of:
        raise ValueError(f"{what}: found {found}, allowed multiples of {of} ({name})")


def scenario_tables(tables: Mapping[str, Floats]) -> Floats:
    """Stack named tables [L, E] to [K, L, E]; all must have one shape."""
    shapes = {name: table.shape for name, table in tables.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"scenarios: found shapes {shapes}, allowed one shape")
    return np.stack(list(tables.values()))
