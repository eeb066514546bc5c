"""What is simulated: one replica, its stages and its room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StageLaw:
    """Seconds of one stage: alpha + kappa * sequences + beta * prompt tokens."""

    alpha_s: float
    kappa_s: float
    beta_s: float


@dataclass(frozen=True)
class Machine:
    """One replica.

    ``hops[i]`` is the law of the hop behind stage i, the last one back to the first
    stage; ``slots`` resident sequences over all ``micro_batches``; ``chunk_tokens``
    prompt tokens of one micro-batch at most; ``kv_tokens`` None: as many as needed.
    """

    stages: tuple[StageLaw, ...]
    slots: int
    chunk_tokens: int
    micro_batches: int = 1
    hops: tuple[StageLaw, ...] = ()
    kv_tokens: int | None = None

    def hop(self, stage: int) -> StageLaw:
        """The hop behind a stage."""
        return self.hops[stage] if self.hops else StageLaw(0.0, 0.0, 0.0)


Role = Literal["mixed", "prefill", "decode"]


@dataclass(frozen=True)
class Group:
    """Replicas of one role. A prefill group hands over KV in the given time."""

    machines: tuple[Machine, ...]
    role: Role = "mixed"
    transfer_s: float = 0.0
    transfer_s_per_token: float = 0.0
