"""Is a flow possible? Covers of one layer counted over all layers: a relaxation.

All layers are equal, so positions are left out. A *cover* is the set of (group, layers
held) that serve one layer; together they must carry the flow. Integers:

    x_c  layers with cover c            sum_c x_c = L
    n_gk nodes of group g with k layers  sum_k n_gk <= N_g
    sum_c x_c * #(gk in c) <= k * n_gk

With at most D stages: a node that carries y serves k layers, so flow times stages is
the sum of y/k over layers; in a cover the least is to fill the nodes of most layers
first. sum_c x_c * (sum_i y_i / k_i) / flow <= D, each share rounded down.

Where no single link between two regions carries the flow, a layer with one node is
never followed by a layer with one node of another region: if lone nodes serve in R
regions, at least R - 1 layers have several.

INFEASIBLE proves that no placement carries the flow; a solution proves nothing. Every
cover that is minimal must be listed: a list that was cut short proves nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any

from shardwright.formulations.cpsat.engine import Limits, run
from shardwright.problem.routed_groups import Group
from shardwright.schema.result import Status

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

MAX_COVERS = 20_000
SHARE = 10**9
"""Unit in which a cover's stages are counted."""


@dataclass(frozen=True)
class Item:
    """A node of a group that holds ``layers``; its rate is cut to the flow."""

    group: int
    layers: int
    rate: int


Cover = tuple[Item, ...]


def flow_refuted(
    groups: Sequence[Group], layers: int, flow: int, stages: int | None, limits: Limits
) -> bool | None:
    """True: no placement carries ``flow`` utok/s; False: the relaxation does.

    None: neither was shown, by the time limit or because covers are too many.
    """
    listed = covers(groups, flow, filled=stages is not None)
    if listed is None:
        return None
    if not listed:
        return True
    status = run(_model(groups, listed, layers, flow, stages), limits).status
    if status is Status.INFEASIBLE:
        return True
    return None if status is Status.UNKNOWN else False


def covers(groups: Sequence[Group], flow: int, *, filled: bool) -> list[Cover] | None:
    """Minimal covers; None if there are more than ``MAX_COVERS``.

    ``filled``: minimal in the order of falling layers, as the stages are counted: no
    node is left without flow when the nodes of most layers are filled first.
    """
    items = [
        Item(g, k, min(rate, flow))
        for g, group in enumerate(groups)
        for k, rate in enumerate(group.rates, 1)
        if rate
    ]
    items.sort(key=lambda item: (-item.layers, item.group))
    search = _Enumeration(items, [g.count for g in groups], flow, filled)
    if not search.complete():
        return None
    if len({group.region for group in groups}) > 1:
        search.found += _shared(items, groups, flow)
    return search.found


class _Enumeration:
    """Depth first over multisets of items, in the order given."""

    def __init__(
        self, items: list[Item], counts: list[int], flow: int, filled: bool
    ) -> None:
        self.found: list[Cover] = []
        self._items, self._left, self._flow = items, counts, flow
        self._filled = filled
        self._steps = 0

    def complete(self) -> bool:
        """List all; False when there are too many."""
        try:
            self._extend(0, [], 0)
        except OverflowError:
            return False
        return True

    def _extend(self, first: int, cover: list[Item], rate: int) -> None:
        self._steps += 1
        if len(self.found) > MAX_COVERS or self._steps > 10 * MAX_COVERS:
            raise OverflowError
        if rate >= self._flow:
            least = min(item.rate for item in cover)
            if self._filled or rate - least < self._flow:
                self.found.append(tuple(cover))
            return
        for i in range(first, len(self._items)):
            item = self._items[i]
            if self._left[item.group]:
                self._left[item.group] -= 1
                self._extend(i, [*cover, item], rate + item.rate)
                self._left[item.group] += 1


def _shared(items: list[Item], groups: Sequence[Group], flow: int) -> list[Cover]:
    """Pairs of which one alone would do: layers with several nodes all the same."""
    return [
        (a, b)
        for i, a in enumerate(items)
        for b in items[i:]
        if max(a.rate, b.rate) >= flow
        and (a.group != b.group or groups[a.group].count > 1)
    ]


def _model(
    groups: Sequence[Group],
    listed: list[Cover],
    layers: int,
    flow: int,
    stages: int | None,
) -> CpModel:
    from ortools.sat.python.cp_model import CpModel, LinearExpr

    model = CpModel()
    x = [model.new_int_var(0, layers, "") for _ in listed]
    model.add(LinearExpr.sum(x) == layers)
    _node_rows(model, groups, listed, x)
    if stages is not None:
        shares = [stage_share(cover, flow) for cover in listed]
        model.add(LinearExpr.weighted_sum(x, shares) <= stages * SHARE)
    if len({group.region for group in groups}) > 1:
        _region_rows(model, groups, listed, x, layers)
    return model


def _node_rows(
    model: CpModel, groups: Sequence[Group], listed: list[Cover], x: list[Any]
) -> None:
    from ortools.sat.python.cp_model import LinearExpr

    users: dict[tuple[int, int], list[Any]] = {}
    for cover, layers in zip(listed, x, strict=True):
        for item in cover:
            users.setdefault((item.group, item.layers), []).append(layers)
    nodes: dict[int, list[Any]] = {}
    for (g, k), served in users.items():
        held = model.new_int_var(0, groups[g].count, "")
        nodes.setdefault(g, []).append(held)
        model.add(LinearExpr.sum(served) <= k * held)
    for g, held in nodes.items():
        model.add(LinearExpr.sum(held) <= groups[g].count)


def stage_share(cover: Cover, flow: int) -> int:
    """Stages per layer of this cover, averaged over the flow, rounded down."""
    unit, left, total = lcm(*(item.layers for item in cover)), flow, 0
    for item in cover:
        carried = min(left, item.rate)
        total += carried * (unit // item.layers)
        left -= carried
    return total * SHARE // (flow * unit)


def _region_rows(
    model: CpModel,
    groups: Sequence[Group],
    listed: list[Cover],
    x: list[Any],
    layers: int,
) -> None:
    from ortools.sat.python.cp_model import LinearExpr

    alone: dict[int, list[Any]] = {}
    several = []
    for cover, served in zip(listed, x, strict=True):
        if len(cover) == 1:
            alone.setdefault(groups[cover[0].group].region, []).append(served)
        else:
            several.append(served)
    used = []
    for lone in alone.values():
        used.append(model.new_bool_var(""))
        model.add(LinearExpr.sum(lone) <= layers * used[-1])
    model.add(LinearExpr.sum(several) >= LinearExpr.sum(used) - 1)
