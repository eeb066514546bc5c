"""What the loss of one GPU or node takes away until a plan is made anew."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from shardwright.cost.law import served
from shardwright.cost.lengths import ceil_fraction, exact
from shardwright.plan.anatomy import Anatomy


@dataclass(frozen=True)
class Impact:
    """Loss of one node, or of any one GPU of a replica.

    A replica stops as a whole: without one rank its stage has no result.
    ``holds_rate`` is None when no request rate is asked.
    """

    what: str
    replicas: tuple[int, ...]
    gpus_stopped: int
    lost_share: float
    requests_per_s_left: float
    holds_rate: bool | None


def gpu_impacts(anatomy: Anatomy) -> list[Impact]:
    """One per replica: any of its GPUs has the same effect."""
    count = len(anatomy.plan.replicas())
    return [_impact(anatomy, f"a GPU of replica {i}", (i,)) for i in range(count)]


def node_impacts(anatomy: Anatomy) -> list[Impact]:
    """One per node in use."""
    hit: dict[str, set[int]] = {}
    for index, replica in enumerate(anatomy.plan.replicas()):
        for gpu in (gpu for stage in replica.stages for gpu in stage.gpus):
            hit.setdefault(gpu.node, set()).add(index)
    return [
        _impact(anatomy, f"node {node}", tuple(sorted(found)))
        for node, found in hit.items()
    ]


def _impact(anatomy: Anatomy, what: str, stopped: tuple[int, ...]) -> Impact:
    replicas = anatomy.plan.replicas()
    total = served(r.served for r in replicas)
    left = served(r.served for i, r in enumerate(replicas) if i not in stopped)
    lost = total - left
    output = anatomy.memory.mix.output_mean
    asked = anatomy.instance.workload.request_rate_per_s
    needed = None if asked is None else ceil_fraction(exact(asked) * output * 1000)
    return Impact(
        what,
        stopped,
        sum(len(s.gpus) for i in stopped for s in replicas[i].stages),
        lost / total if total else 0.0,
        float(Fraction(total - lost, 1000) / output),
        None if needed is None else total - lost >= needed,
    )
