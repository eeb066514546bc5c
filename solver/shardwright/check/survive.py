"""What is left of the rate after the loss of GPUs or nodes (cost-model, section 7)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from shardwright.check.case import Case
from shardwright.check.exact import exact
from shardwright.check.figures import ReplicaFigures
from shardwright.check.report import RuleRow, at_least
from shardwright.schema.workload import Survive


def survive(case: Case) -> Iterator[RuleRow]:
    """rate without the k fastest replicas or worst nodes >= ⌈load·rate_per_s·Ō·1000⌉"""
    asked = case.instance.workload.request_rate_per_s or 0.0
    needed = exact(asked) * case.figures.mix.mean_output * 1000
    replicas = case.figures.of_role("mixed")
    rate = sum(replica.rate_mtok_per_s for replica in replicas)
    for entry in case.instance.limits.survive:
        yield at_least(
            "survive",
            "plan",
            f"output rate without any {_words(entry)} is",
            rate - _lost_mtok_per_s(replicas, entry),
            math.ceil(exact(entry.load) * needed),
            "mtok/s",
        )


def _words(entry: Survive) -> str:
    if entry.gpus is not None:
        return "GPU" if entry.gpus == 1 else f"{entry.gpus} GPUs"
    return "node" if entry.nodes == 1 else f"{entry.nodes} nodes"


def _lost_mtok_per_s(replicas: Sequence[ReplicaFigures], entry: Survive) -> int:
    """Each GPU may stop a replica of its own; each node is counted by itself."""
    if entry.gpus is not None:
        losses = [replica.rate_mtok_per_s for replica in replicas]
        return sum(sorted(losses, reverse=True)[: entry.gpus])
    nodes: Counter[str] = Counter()
    for replica in replicas:
        names = {gpu.node for stage in replica.stages for gpu in stage.stage.gpus}
        nodes.update(dict.fromkeys(names, replica.rate_mtok_per_s))
    return sum(loss for _, loss in nodes.most_common(entry.nodes))
