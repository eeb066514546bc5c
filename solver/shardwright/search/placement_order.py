"""Rank order: which GPU of a stage's set is which rank, so that hops fit together.

A stage's first rank follows its groups; every later stage takes the order of the
stage before it by the best matching, group by group where both have groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from shardwright.problem.bottleneck import best_matching, matching
from shardwright.problem.linkcost import LinkCosts
from shardwright.problem.topology import Gpu
from shardwright.problem.traffic import ReplicaTraffic, StageTraffic, Traffic

Ranks = tuple[Gpu, ...]
_PERMUTED = 4


def rank_order(
    costs: LinkCosts, replica: ReplicaTraffic, stages: Sequence[Sequence[Gpu]]
) -> Ranks:
    """GPUs of a replica in rank order, from the set of every stage."""
    ordered: list[Ranks] = []
    for i, (stage, gpus) in enumerate(zip(replica.stages, stages, strict=True)):
        groups = [tuple(group) for group in costs.grouped(stage, gpus)[1]]
        if stage.strided():
            groups = _aligned(costs, groups)
        if i:
            size = replica.hops_bytes[i - 1]
            groups = _following(costs, ordered[-1], replica.stages[i - 1], groups, size)
        ordered.append(tuple(gpu for group in groups for gpu in group))
    return tuple(gpu for gpus in ordered for gpu in gpus)


def _aligned(costs: LinkCosts, groups: list[Ranks]) -> list[Ranks]:
    """Every group in the order of the group before it."""
    found = groups[:1]
    for group in groups[1:]:
        found.append(_matched(costs, found[-1], group, 1))
    return found


def _following(
    costs: LinkCosts,
    before: Ranks,
    stage_before: StageTraffic,
    groups: list[Ranks],
    size_bytes: int,
) -> list[Ranks]:
    """Groups and their ranks in the order that suits the stage before."""
    if len(groups) == 1:
        return [_matched(costs, before, groups[0], size_bytes)]
    inner = stage_before.inner
    sources = [before[i : i + inner] for i in range(0, len(before), inner)]
    if len(sources) != len(groups):
        return groups
    between = [[costs.hop(a, b, max(size_bytes, 1)) for b in groups] for a in sources]
    rows = matching(between, best_matching(between))
    assert rows is not None
    by_source = dict(zip(rows, groups, strict=True))
    return [
        _matched(costs, source, by_source[i], size_bytes)
        for i, source in enumerate(sources)
    ]


def _matched(costs: LinkCosts, before: Ranks, gpus: Ranks, size_bytes: int) -> Ranks:
    """The GPUs in the order in which the ranks before them send best."""
    topology = costs.topology
    ranks = min(len(before), len(gpus))
    times = [link.time_ns(max(size_bytes, 1), ranks) for link in topology.classes]
    if len(gpus) < len(before):
        share = -(-len(before) // len(gpus))
        matrix = [[times[topology.link(b, a)] for a in before] for b in gpus]
        rows = matching(matrix, best_matching(matrix))
        assert rows is not None
        # the order of the stage before stands: a GPU serves where most of its ranks are
        places = [
            [k for k, row in enumerate(rows) if row == i] for i in range(len(gpus))
        ]
        order = sorted(range(len(gpus)), key=lambda i: (sum(places[i]) / share, i))
        return tuple(gpus[i] for i in order)
    matrix = [[times[topology.link(a, b)] for b in gpus] for a in before]
    rows = matching(matrix, best_matching(matrix))
    assert rows is not None
    order = sorted(range(len(gpus)), key=lambda k: (rows[k], k))
    return tuple(gpus[k] for k in order)


def polished(
    costs: LinkCosts, traffic: Traffic, named: Sequence[Ranks]
) -> tuple[Ranks, ...]:
    """Orders inside small groups changed while that lowers the total cost."""
    best = [*named]
    value = costs.total(traffic, best)
    improved = True
    while improved:
        improved = False
        for r, replica in enumerate(traffic.replicas):
            for cut, stage in zip(replica.slices(), replica.stages, strict=True):
                if stage.gpus > _PERMUTED:
                    continue
                for order in permutations(best[r][cut]):
                    ranks = (*best[r][: cut.start], *order, *best[r][cut.stop :])
                    trial = [*best[:r], ranks, *best[r + 1 :]]
                    new = costs.total(traffic, trial)
                    if new < value:
                        best, value, improved = trial, new, True
    return tuple(best)
