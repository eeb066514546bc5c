"""Memory by strategy: what every equal shape would need, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardwright.cost.shape import StageShape
from shardwright.plan.anatomy import Anatomy, gpu_count
from shardwright.plan.launch import divides
from shardwright.problem import EngineSwitches, mixtures
from shardwright.problem.context import kv_shards
from shardwright.problem.shapes import ShapeRules
from shardwright.schema.instance import Fix
from shardwright.schema.plan import MemoryParts, Replica

Batch = tuple[int, int]
"""Sequences and prefill chunk tokens."""


@dataclass(frozen=True)
class Strategy:
    """One shape with layers split evenly, on its fullest GPU.

    ``largest_batch`` is the most sequences whose memory fits, 0 when none do.
    """

    gpu_type: str
    shape: StageShape
    pp: int
    peak: MemoryParts
    usable_bytes: int
    largest_batch: int

    @property
    def tp(self) -> int:
        """Tensor parallelism of attention."""
        return self.shape.tp

    @property
    def fits(self) -> bool:
        """Whether the batch that was asked about fits."""
        return self.peak.total() <= self.usable_bytes


def strategies(anatomy: Anatomy, replica: Replica) -> list[Strategy]:
    """Shapes on the types that the replica uses, at its batch and prefill chunk.

    Of a dense model those of up to the replica's GPUs; with experts, where there are
    many more, those of exactly its GPUs.
    """
    point = replica.operating_point
    batch = (point.sequences, point.prefill_chunk_tokens)
    shapes = _expert_shapes if mixtures(anatomy.instance.model) else _dense_shapes
    return [
        _strategy(anatomy, replica, name, shape, pp, batch)
        for name in dict.fromkeys(stage.gpu_type for stage in replica.stages)
        for shape, pp in shapes(anatomy, replica, name)
    ]


def _dense_shapes(
    anatomy: Anatomy, replica: Replica, gpu_type: str
) -> Iterator[tuple[StageShape, int]]:
    cluster, model = anatomy.instance.cluster, anatomy.instance.model
    groups = [g for g in cluster.nodes if g.gpu == gpu_type]
    widest = max(cluster.island_size(g) for g in groups)
    gpus = gpu_count(replica.stages)
    degrees = sorted({1, *(stage.shape.cp for stage in replica.stages)})
    kinds = [k.attention for k in model.layer_kinds if k.attention is not None]
    for tp in range(1, min(widest, gpus) + 1):
        if all(divides(attention, tp) for attention in kinds):
            for cp in (n for n in degrees if n * tp <= min(widest, gpus)):
                shape = StageShape.dense(tp, cp, kv_shards(anatomy.instance, cp))
                for pp in range(1, min(gpus // shape.gpus, len(model.layers)) + 1):
                    yield shape, pp


def _expert_shapes(
    anatomy: Anatomy, replica: Replica, gpu_type: str
) -> Iterator[tuple[StageShape, int]]:
    """Shapes that the engine allows on whole islands, ``fix`` left aside."""
    instance = anatomy.instance.model_copy(update={"fix": Fix()})
    cluster, gpus = instance.cluster, gpu_count(replica.stages)
    groups = [g for g in cluster.nodes if g.gpu == gpu_type]
    size = max(cluster.island_size(g) for g in groups)
    islands = max(1, gpus // size)
    rules = ShapeRules(instance, EngineSwitches.of(instance))
    for shape in rules.shapes([min(size, gpus)] * islands, size):
        pp, rest = divmod(gpus, shape.gpus)
        if shape.disaggregated:
            continue  # two sorts of GPUs: the tables memory and alternatives have them
        if pp and not rest and pp <= len(instance.model.layers):
            yield shape, pp


def _strategy(
    anatomy: Anatomy,
    replica: Replica,
    gpu_type: str,
    shape: StageShape,
    pp: int,
    batch: Batch,
) -> Strategy:
    stage = next(s for s in replica.stages if s.gpu_type == gpu_type)
    usable = anatomy.usable_bytes(stage)
    peak = _peak(anatomy, gpu_type, shape, pp, batch)
    low, high = 0, anatomy.instance.workload.max_batch
    while low < high:
        middle = (low + high + 1) // 2
        tried = _peak(anatomy, gpu_type, shape, pp, (middle, batch[1]))
        low, high = (middle, high) if tried.total() <= usable else (low, middle - 1)
    return Strategy(gpu_type, shape, pp, peak, usable, low)


def _peak(
    anatomy: Anatomy, gpu_type: str, shape: StageShape, pp: int, batch: Batch
) -> MemoryParts:
    """The fullest GPU of an even split."""
    layers = even_split(len(anatomy.instance.model.layers), pp)
    micro_batch = -(-batch[0] // pp)
    parts = anatomy.memory.pipeline(
        [gpu_type] * pp, [shape] * pp, layers, (batch[0], micro_batch, batch[1])
    )
    return max(parts, key=MemoryParts.total)


def even_split(layers: int, stages: int) -> list[tuple[int, int]]:
    """Half-open ranges; inner stages take the remainder, as the outer hold more."""
    base, rest = divmod(layers, stages)
    sizes = [base] * stages
    order = [*range(stages - 2, 0, -1), 0, stages - 1]
    for i in order[:rest]:
        sizes[i] += 1
    starts = [sum(sizes[:i]) for i in range(stages)]
    return [(a, a + n) for a, n in zip(starts, sizes, strict=True)]
