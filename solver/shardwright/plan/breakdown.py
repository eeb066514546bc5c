"""Where the time of a token and of a prompt goes."""

from __future__ import annotations

from dataclasses import dataclass

from shardwright.plan.anatomy import Anatomy
from shardwright.schema.plan import Replica


@dataclass(frozen=True)
class Breakdown:
    """Parts of a latency in ns; ``waiting_ns`` is what the pipeline makes wait.

    Decode: until the slowest stage is free again. Prefill: for the further chunks of
    the prompt behind the slowest stage.
    """

    compute_ns: int
    collectives_ns: int
    hops_ns: int
    waiting_ns: int

    @property
    def total_ns(self) -> int:
        """Sum of the parts."""
        return self.compute_ns + self.collectives_ns + self.hops_ns + self.waiting_ns


def decode_breakdown(anatomy: Anatomy, replica: Replica) -> Breakdown:
    """Parts of TPOT = max(q T, S)."""
    collectives = sum(t.decode_ns for t in anatomy.communication(replica))
    hops = sum(hop.times.decode_ns for hop in anatomy.hops(replica))
    hops += anatomy.return_ns(replica)
    stages = sum(stage.decode_time_ns for stage in replica.stages)
    waiting = replica.latency.tpot_ns - stages - hops
    return Breakdown(stages - collectives, collectives, hops, waiting)


def prefill_breakdown(anatomy: Anatomy, replica: Replica) -> Breakdown:
    """Parts of the prefill latency of a mean prompt."""
    collectives = sum(t.prefill_ns for t in anatomy.communication(replica))
    hops = sum(hop.times.prefill_ns for hop in anatomy.hops(replica))
    stages = sum(stage.prefill_time_ns for stage in replica.stages)
    waiting = replica.latency.prefill_ns - stages - hops
    return Breakdown(stages - collectives, collectives, hops, waiting)
