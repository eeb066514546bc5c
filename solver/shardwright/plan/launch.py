"""Launchability: which engines can start a plan, and what forbids the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shardwright.plan.anatomy import Anatomy
from shardwright.schema.model import AnyAttention
from shardwright.schema.plan import Replica


@dataclass(frozen=True)
class Obstacle:
    """A rule of an engine that a replica breaks."""

    rule: str
    replica: int
    why: str


@dataclass(frozen=True)
class EngineVerdict:
    """One engine: it can launch the plan when nothing is in the way."""

    engine: str
    obstacles: tuple[Obstacle, ...]

    @property
    def launchable(self) -> bool:
        """Whether every replica can be started as one server of the engine."""
        return not self.obstacles

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "engine": self.engine,
            "launchable": self.launchable,
            "obstacles": [vars(obstacle) for obstacle in self.obstacles],
        }


Rule = Callable[[Anatomy, Replica], str | None]


def equal_shape_per_stage(anatomy: Anatomy, replica: Replica) -> str | None:
    """One tensor-parallel degree is given for all stages."""
    degrees = [stage.shape.tp for stage in replica.stages]
    if len(set(degrees)) == 1:
        return None
    return f"stages have tp {', '.join(map(str, degrees))}; one degree is allowed"


def micro_batches_equal_stages(anatomy: Anatomy, replica: Replica) -> str | None:
    """As many batches are in flight as there are stages."""
    q, p = replica.operating_point.micro_batches, len(replica.stages)
    return None if q == p else f"{q} micro-batches on {p} stages; {p} run"


def heads_divisible(anatomy: Anatomy, replica: Replica) -> str | None:
    """tp divides the heads; KV heads are split evenly or copied evenly."""
    kinds = anatomy.instance.model.layer_kinds
    for tp in sorted({stage.shape.tp for stage in replica.stages}):
        for attention in (kind.attention for kind in kinds):
            if attention is not None and not divides(attention, tp):
                heads = f"{attention.heads} heads, {attention.kv_heads} KV heads"
                return f"tp {tp} does not divide {heads}"
    return None


def divides(attention: AnyAttention, tp: int) -> bool:
    """Whether ``tp`` ranks can share the heads evenly."""
    kv = attention.kv_heads
    return attention.heads % tp == 0 and (kv % tp == 0 or tp % kv == 0)


def equal_gpus_per_node(anatomy: Anatomy, replica: Replica) -> str | None:
    """Every node of a server runs the same number of ranks."""
    per_node = Counter(gpu.node for stage in replica.stages for gpu in stage.gpus)
    if len(set(per_node.values())) == 1:
        return None
    found = ", ".join(f"{node}: {n}" for node, n in sorted(per_node.items()))
    return f"GPUs per node differ ({found})"


_COMMON: tuple[Rule, ...] = (
    equal_shape_per_stage,
    micro_batches_equal_stages,
    heads_divisible,
)

ENGINES: dict[str, tuple[Rule, ...]] = {
    "vllm": _COMMON,
    "sglang": (*_COMMON, equal_gpus_per_node),
    "trtllm": _COMMON,
}
"""Rules of each engine. Replicas are servers of their own and may differ."""


def launchability(anatomy: Anatomy) -> list[EngineVerdict]:
    """The verdict on every engine."""
    return [
        EngineVerdict(engine, tuple(_obstacles(anatomy, rules)))
        for engine, rules in ENGINES.items()
    ]


def _obstacles(anatomy: Anatomy, rules: tuple[Rule, ...]) -> Iterator[Obstacle]:
    for index, replica in enumerate(anatomy.plan.replicas()):
        for rule in rules:
            why = rule(anatomy, replica)
            if why is not None:
                yield Obstacle(rule.__name__, index, why)
