"""What the ranks of a plan send one another in one iteration, before GPUs are named."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from shardwright.schema.errors import FieldError, InvalidInstance

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "ring", "all_to_all"]
KINDS: tuple[Kind, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "ring",
    "all_to_all",
)


@dataclass(frozen=True)
class Collective:
    """A collective that the ranks of a stage run in groups of ``ranks``.

    With stride 1 a group is a run of consecutive ranks (TP, EP); with stride s it is
    the ranks r, r + s, r + 2s, ... (CP over TP groups of s). ``size_bytes`` is the
    message of the textbook formula: what is reduced or gathered in total, what one
    rank sends to all others (all_to_all), what one rank passes on in all steps of a
    full turn (ring). All calls of one iteration together, ``calls`` of them.
    """

    kind: Kind
    ranks: int
    size_bytes: int
    stride: int = 1
    calls: int = 1

    def __post_init__(self) -> None:
        sizes = (self.ranks - 1, self.size_bytes, self.stride - 1, self.calls - 1)
        if self.kind not in KINDS or min(sizes) < 0:
            raise _refused("collective", str(self), f"kinds {KINDS}, sizes from 1")


@dataclass(frozen=True)
class StageTraffic:
    """A stage: how many GPUs, of which type (None: any), and its collectives."""

    gpus: int
    collectives: tuple[Collective, ...] = ()
    gpu_type: str | None = None

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise _refused("stage.gpus", str(self.gpus), "at least 1")
        for one in self.collectives:
            if self.gpus % (one.ranks * one.stride):
                allowed = f"ranks * stride divides {self.gpus}"
                raise _refused("stage.collectives", str(one), allowed)
        self._one_inner_size()

    def _one_inner_size(self) -> None:
        inner = {c.ranks for c in self.collectives if c.stride == 1}
        inner |= {c.stride for c in self.collectives if c.stride > 1}
        inner -= {1, self.gpus}
        strided = {c.ranks * c.stride for c in self.collectives if c.stride > 1}
        if len(inner) > 1 or strided - {self.gpus}:
            found = f"groups of {sorted(inner)} in a stage of {self.gpus}"
            allowed = "groups of one size below the stage's, strided ones over all"
            raise _refused("stage.collectives", found, allowed)

    @property
    def inner(self) -> int:
        """Ranks of a consecutive group; the whole stage where nothing is smaller."""
        sizes = {c.ranks for c in self.collectives if c.stride == 1}
        sizes |= {c.stride for c in self.collectives if c.stride > 1}
        return min(sizes - {1, self.gpus}, default=self.gpus)

    def in_groups(self) -> tuple[Collective, ...]:
        """Collectives of the consecutive groups below the stage's size."""
        return tuple(
            c for c in self.collectives if c.stride == 1 and 1 < c.ranks < self.gpus
        )

    def whole(self) -> tuple[Collective, ...]:
        """Collectives over all ranks."""
        return tuple(
            c
            for c in self.collectives
            if c.stride == 1 and c.ranks == self.gpus and self.gpus > 1
        )

    def strided(self) -> tuple[Collective, ...]:
        """Collectives across the groups."""
        return tuple(c for c in self.collectives if c.stride > 1 and c.ranks > 1)


@dataclass(frozen=True)
class ReplicaTraffic:
    """Stages in order and the bytes that each hands to the next per iteration.

    ``weight`` multiplies the replica's cost (iterations per unit of time).
    ``stage_limit_ns`` and ``hop_limit_ns`` are the times that the search assumed
    (None: nothing assumed); a placement that exceeds one reports it.
    """

    stages: tuple[StageTraffic, ...]
    hops_bytes: tuple[int, ...]
    weight: int = 1
    stage_limit_ns: tuple[int | None, ...] = ()
    hop_limit_ns: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages or len(self.hops_bytes) != len(self.stages) - 1:
            found = f"{len(self.stages)} stages, {len(self.hops_bytes)} hops"
            raise _refused("replica", found, "one hop between every two stages")
        if min((*self.hops_bytes, self.weight - 1)) < 0:
            raise _refused("replica", str(self.hops_bytes), "bytes from 0, weight 1")

    @classmethod
    def uniform(
        cls, stage: StageTraffic, stages: int, hop_bytes: int, weight: int = 1
    ) -> ReplicaTraffic:
        """A pipeline of equal stages."""
        return cls((stage,) * stages, (hop_bytes,) * (stages - 1), weight)

    @property
    def gpus(self) -> int:
        """GPUs of the replica."""
        return sum(stage.gpus for stage in self.stages)

    def starts(self) -> list[int]:
        """First rank of every stage, and the end."""
        found = [0]
        for stage in self.stages:
            found.append(found[-1] + stage.gpus)
        return found

    def slices(self) -> list[slice]:
        """Ranks of every stage."""
        return [slice(a, b) for a, b in pairwise(self.starts())]


@dataclass(frozen=True)
class Transfer:
    """Bytes per iteration from one replica to another: KV from prefill to decode."""

    source: int
    target: int
    size_bytes: int


@dataclass(frozen=True)
class Peers:
    """A ring over the same rank of several replicas; the slowest rank counts.

    ``size_bytes`` is the message of one rank. The replicas have equal stages.
    """

    replicas: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Traffic:
    """All replicas of a plan. ``combine`` is how their costs become one."""

    replicas: tuple[ReplicaTraffic, ...]
    transfers: tuple[Transfer, ...] = ()
    peers: tuple[Peers, ...] = ()
    combine: Literal["sum", "max"] = "sum"

    def __post_init__(self) -> None:
        count = len(self.replicas)
        named = {i for t in self.transfers for i in (t.source, t.target)}
        named |= {i for p in self.peers for i in p.replicas}
        if not count or any(not 0 <= i < count for i in named):
            raise _refused("traffic", f"replicas {sorted(named)}", f"0 to {count - 1}")
        for peers in self.peers:
            stages = (self.replicas[i].stages for i in peers.replicas)
            sizes = {tuple(stage.gpus for stage in of_one) for of_one in stages}
            if len(sizes) > 1:
                raise _refused("peers", str(peers), "replicas of equal stages")

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return sum(replica.gpus for replica in self.replicas)

    @property
    def coupled(self) -> bool:
        """Whether replicas exchange anything."""
        return bool(self.transfers or self.peers)


def _refused(path: str, found: str, allowed: str) -> InvalidInstance:
    return InvalidInstance("traffic", [FieldError(path, found, allowed)])
