"""Placements as chains of blocks: the largest flow for which the program finds one.

Regions are components of the links that carry the largest flow possible; a chain visits
each at most once. What the program leaves out (which node is which, the exact rates of
links between regions) is settled by a program that names the nodes, and by the exact
flow of the placement: only that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, permutations

from shardwright.formulations.cpsat.routed_chain import Block, Leg, LegChoice, chain
from shardwright.formulations.cpsat.routed_covers import SHARE
from shardwright.formulations.cpsat.routed_names import named
from shardwright.problem.routed import SINK, SOURCE, RoutedProblem
from shardwright.problem.routed_groups import Group, groups_of, regions_at
from shardwright.schema.result import Status
from shardwright.search.base import SearchLimits
from shardwright.search.routed_blocks import BlockTable
from shardwright.search.routed_flow import max_flow
from shardwright.search.routed_local import Found
from shardwright.search.routed_routes import Caps, capped_flow

_MAX_REGIONS = 4
_MAX_LINKS = 6
"""Links of one crossing, at most; also the widest gate."""
_MORE = 12
"""Flows tried again, from above, where only names failed."""
_CALL_S, _NAMING_S = 10.0, 5.0
_ALL = -1
"""All nodes as one region, whatever their links carry."""


class ChainSearch:
    """Tables of blocks for every region, made once; then a chain for every flow."""

    def __init__(
        self, problem: RoutedProblem, upper: int, limits: SearchLimits
    ) -> None:
        self._problem, self._limits = problem, limits
        regions = regions_at(problem, upper)
        if max(regions) >= _MAX_REGIONS:
            regions = (0,) * len(regions)
        self._region_of = regions
        self.regions = sorted(set(regions))
        self._groups = _by_region(groups_of(problem, regions))
        if len(self.regions) > 1:
            # links between regions may do where the flow divides
            (self._groups[_ALL],) = _by_region(
                groups_of(problem, (0,) * len(regions))
            ).values()
        self._tables = {}
        for region, groups in self._groups.items():
            limits.poll()
            self._tables[region] = BlockTable(groups, problem.layers, upper)
        self._links = self._crossings()
        self.flows = self._flows(upper)

    def best(self, stages: int | None, upper: int, known: Found) -> Found:
        """The best placement of at most ``stages``, by bisection over the flows that
        blocks carry; at least ``known``.

        Whether there is a chain falls with the flow; whether names do for its links
        need not, so flows that failed by their names alone do not end the search.
        """
        flows = [f for f in self.flows if known.value < f <= upper]
        low, high, chains, best = -1, len(flows), -1, known
        tried = set()
        while high - low > 1:
            self._limits.poll()
            middle = (low + high) // 2
            found = self.at(flows[middle], stages, least=False)
            tried.add(middle)
            best = max(best, found or best, key=lambda f: f.value)
            chains = max(chains, middle if found else -1)
            carried = found is not None and found.value >= flows[middle]
            low, high = (middle, high) if carried else (low, middle)
        for i in [i for i in range(chains, low, -1) if i not in tried][:_MORE]:
            self._limits.poll()
            found = self.at(flows[i], stages, least=False) or best
            best = max(best, found, key=lambda f: f.value)
            if best.value >= flows[i]:
                break
        return best

    def at(self, flow: int, stages: int | None, *, least: bool) -> Found | None:
        """A placement for this flow, or the best that came out of trying; ``least``:
        the one with the fewest stages over all orders of regions."""
        best: Found | None = None
        for order in self._orders():
            found = self._along(order, flow, stages, least=least)
            if found is None:
                continue
            if best is None or found.value > best.value:
                best = found
            if found.value >= flow:
                if not least or found.flow.stages == 1:
                    return found
                # from here on only what is less deep
                best, stages = found, found.flow.stages - 1
        return best

    def _along(
        self, order: tuple[int, ...], flow: int, stages: int | None, *, least: bool
    ) -> Found | None:
        """As if all links between regions were as fast as the fastest; where names for
        that are not found, as if they were as slow as the slowest."""
        if not self._can(order, flow):
            return None
        best: Found | None = None
        # lanes keep the cap by choosing routes, which the exact flow has to confirm
        for lanes in (False, True) if stages and not least else (False,):
            asked: set[tuple[int, ...]] = set()
            for links in (self._needed(order, flow, kind) for kind in (max, min)):
                if links is None or links in asked:
                    continue
                asked.add(links)
                legs = self._legs(order, flow, links, lanes=lanes)
                found = self._chained(order, legs, flow, stages, lanes, least=least)
                if found is None:
                    break
                best = max(best or found, found, key=lambda f: f.value)
                if best.value >= flow:
                    return best
        return best

    def _needed(
        self, order: tuple[int, ...], flow: int, kind: Callable[[list[int]], int]
    ) -> tuple[int, ...] | None:
        """Links that every leg needs from the one before; None: too many."""
        needed = [1]
        for pair in pairwise(order):
            rate = kind(self._links.get(pair, [1]))
            needed.append(-(-flow // rate))
        return tuple(needed) if max(needed) <= _MAX_LINKS else None

    def _chained(
        self,
        order: tuple[int, ...],
        legs: list[Leg],
        flow: int,
        stages: int | None,
        lanes: bool,
        *,
        least: bool,
    ) -> Found | None:
        layers, limits = self._problem.layers, self._part(_CALL_S)
        cap = stages * SHARE if lanes and stages else stages
        status, choices = chain(legs, layers, cap, limits, least=least or lanes)
        if status not in (Status.OPTIMAL, Status.FEASIBLE):
            return None
        placement = self._laid_out(order, legs, choices, flow)
        found = Found(placement, capped_flow(self._problem, placement, Caps(stages)))
        if found.value >= flow or max_flow(self._problem, placement).value >= flow:
            return found
        return self._renamed(found, flow, stages)

    def _renamed(self, found: Found, flow: int, stages: int | None) -> Found:
        """The same intervals for the nodes whose links suit them best."""
        placement = named(self._problem, found.placement, flow, self._part(_NAMING_S))
        if placement is None:
            return found
        other = capped_flow(self._problem, placement, Caps(stages))
        return max(found, Found(placement, other), key=lambda f: f.value)

    def _part(self, seconds: float) -> SearchLimits:
        """Limits for one call of an engine."""
        limits = self._limits
        ends = limits.elapsed_s() + min(limits.remaining_s(), seconds)
        return replace(limits, time_limit_s=ends)

    def _orders(self) -> Iterator[tuple[int, ...]]:
        """Regions in every order, more regions first; then all nodes as one."""
        for size in range(len(self.regions), 0, -1):
            yield from permutations(self.regions, size)
        if _ALL in self._groups:
            yield (_ALL,)

    def _can(self, order: tuple[int, ...], flow: int) -> bool:
        """Whether these regions have the work of all layers at this flow."""
        work = sum(
            group.count * max(k * min(r, flow) for k, r in enumerate(group.rates, 1))
            for region in order
            for group in self._groups[region]
        )
        return work >= self._problem.layers * flow

    def _legs(
        self, order: tuple[int, ...], flow: int, links: tuple[int, ...], *, lanes: bool
    ) -> list[Leg]:
        """Blocks and gates of every region; with ``lanes`` stages count in shares."""
        legs = []
        for region, needed in zip(order, links, strict=True):
            table = self._tables[region]
            gates = table.gates(flow, _MAX_LINKS) if len(order) > 1 else []
            blocks = table.laned(flow) if lanes else table.blocks(flow)
            if lanes:
                gates = [replace(gate, stages=SHARE) for gate in gates]
            counts = tuple(g.count for g in self._groups[region])
            legs.append(Leg(counts, blocks, gates, needed))
        return legs

    def _laid_out(
        self,
        order: tuple[int, ...],
        legs: list[Leg],
        choices: tuple[LegChoice, ...],
        flow: int,
    ) -> dict[int, tuple[int, int]]:
        """Blocks one after the other from layer 0; nodes of a group in their order."""
        placement: dict[int, tuple[int, int]] = {}
        at = 0
        for region, leg, choice in zip(order, legs, choices, strict=True):
            groups = self._groups[region]
            free = [list(group.nodes) for group in groups]
            for block in _in_order(leg, choice):
                for g, start, held in self._tables[region].pieces(block, flow):
                    placement[free[g].pop(0)] = (at + start, held)
                at += block.layers
        return placement

    def _crossings(self) -> dict[tuple[int, int], list[int]]:
        """Rates of the links from region to region, in utok/s."""
        rates: dict[tuple[int, int], list[int]] = {}
        for (a, b), rate in self._problem.links.items():
            if a == SOURCE or b == SINK or not rate:
                continue
            pair = (self._region_of[a], self._region_of[b])
            if pair[0] != pair[1]:
                rates.setdefault(pair, []).append(rate)
        return rates

    def _flows(self, upper: int) -> list[int]:
        flows = set().union(*(table.flows() for table in self._tables.values()))
        for rates in self._links.values():
            ends = {min(rates), max(rates)}
            flows |= {n * rate for n in range(1, _MAX_LINKS + 1) for rate in ends}
        return sorted(f for f in flows if f <= upper)


def _by_region(groups: tuple[Group, ...]) -> dict[int, list[Group]]:
    regions: dict[int, list[Group]] = {}
    for group in groups:
        regions.setdefault(group.region, []).append(group)
    return regions


def _in_order(leg: Leg, choice: LegChoice) -> Iterator[Block]:
    if choice.entry is not None:
        yield leg.gates[choice.entry]
    yield from (leg.blocks[i] for i in choice.blocks)
    if choice.exit is not None:
        yield leg.gates[choice.exit]
