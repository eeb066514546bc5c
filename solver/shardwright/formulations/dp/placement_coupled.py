"""Exact placement of few replicas that exchange data: enumeration with a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shardwright.formulations.dp.placement import Path, Paths
from shardwright.problem.traffic import Peers, Traffic, Transfer

Goals = tuple[int, int, int]


@dataclass
class Coupled:
    """Every choice of GPUs for every replica; (cost, nodes, exposure) is minimised.

    ``exposure`` gives the third goal of the masks of all replicas.
    """

    traffic: Traffic
    paths: Sequence[Paths]
    exposure: Callable[[Sequence[int]], int]
    best: Goals | None = None
    found: tuple[Path, ...] = ()
    _options: list[list[tuple[int, Path]]] = field(default_factory=list)

    def solve(self) -> None:
        """Leave the best choice in ``best`` and ``found``."""
        self._options = [sorted(self._of(path)) for path in self.paths]
        self._extend((), (), 0)

    def _of(self, paths: Paths) -> Iterator[tuple[int, Path]]:
        """Stages to choose from: all with peers, else the best of every set."""
        if not self.traffic.peers:
            yield from ((cost, paths.path(m)) for m, cost in paths.costs.items())
            return
        for used in paths.costs:
            yield from paths.all_paths(used)

    def _extend(
        self, chosen: tuple[Path, ...], costs: tuple[int, ...], used: int
    ) -> None:
        r = len(chosen)
        if r == len(self.paths):
            self._keep(chosen, costs)
            return
        for cost, path in self._options[r]:
            mask = sum(path)
            if mask & used:
                continue
            if self.best is not None and self._combined((*costs, cost)) > self.best[0]:
                break  # options stand in order of their cost
            self._extend((*chosen, path), (*costs, cost), used | mask)

    def _combined(self, costs: Sequence[int]) -> int:
        return sum(costs) if self.traffic.combine == "sum" else max(costs)

    def _keep(self, chosen: tuple[Path, ...], costs: tuple[int, ...]) -> None:
        cost = self._combined(costs)
        cost += sum(self._transfer(t, chosen) for t in self.traffic.transfers)
        cost += sum(self._peers(p, chosen) for p in self.traffic.peers)
        if self.best is not None and cost > self.best[0]:
            return
        masks = [sum(path) for path in chosen]
        nodes = sum(self.paths[0].gpus.nodes(mask) for mask in masks)
        goals = cost, nodes, self.exposure(masks)
        if self.best is None or goals < self.best:
            self.best, self.found = goals, chosen

    def _transfer(self, one: Transfer, chosen: tuple[Path, ...]) -> int:
        ends = sum(chosen[one.source]), sum(chosen[one.target])
        return self.paths[0].gpus.hop(*ends, one.size_bytes)

    def _peers(self, peers: Peers, chosen: tuple[Path, ...]) -> int:
        gpus = self.paths[0].gpus
        stages = zip(*(chosen[i] for i in peers.replicas), strict=True)
        sets = [[gpus.of(mask) for mask in masks] for masks in stages]
        return max(gpus.costs.peers_of_sets(peers, stage) for stage in sets)
