"""Decoding: from a fleet of counted designs to the plan document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwright.cost.lengths import ceil_div
from shardwright.cost.shape import StageShape
from shardwright.plan.load import replica_loads
from shardwright.plan.naming import NamedReplica, name_gpus, settle
from shardwright.plan.parts import MemoryAnatomy
from shardwright.problem import (
    Design,
    ExpertMaps,
    Figures,
    Fleet,
    Point,
    PoolRole,
    Problem,
    mixtures,
)
from shardwright.problem.cluster_topology import has_topology
from shardwright.schema.errors import SolverFailure
from shardwright.schema.instance import Instance
from shardwright.schema.plan import (
    ExpertMap,
    ExpertUnit,
    GpuRank,
    MemoryParts,
    OperatingPoint,
    Plan,
    Pool,
    Replica,
    ReplicaLatency,
    Shape,
    Stage,
)


def decode(instance: Instance, problem: Problem, fleet: Fleet, sha256: str) -> Plan:
    """The plan of a fleet: every rank has its GPU, every claim is re-evaluated.

    Replicas stand in order of their rate, largest first. Hops are priced as the
    islands have them, so a claim can be better than the search's, never worse on
    clusters whose fast links are faster than their network.
    """
    anatomy = MemoryAnatomy(instance)
    named = name_gpus(problem, settle(problem, fleet))
    plan = Plan(
        instance_name=instance.name,
        instance_sha256=sha256,
        pools=_pools(problem, anatomy, named),
        expert_map=_expert_maps(instance, problem, fleet),
    )
    if not has_topology(instance.cluster):
        return plan
    from shardwright.plan.named import named_by_topology

    named = named_by_topology(instance, problem, named, plan)
    return plan.model_copy(update={"pools": _pools(problem, anatomy, named)})


def _pools(
    problem: Problem, anatomy: MemoryAnatomy, named: Sequence[NamedReplica]
) -> tuple[Pool, ...]:
    """Replicas by role: those that do everything, then prefill, then decode."""
    found: dict[PoolRole, list[Replica]] = {"mixed": [], "prefill": [], "decode": []}
    loads = replica_loads(anatomy.instance, problem, [one.design for one in named])
    known: dict[Design, _Claims] = {}
    for one, load in zip(named, loads, strict=True):
        if one.design not in known:
            known[one.design] = _Claims.of(problem, anatomy, one.design)
        claims = known[one.design]
        replica = Replica(
            operating_point=claims.point,
            stages=_stages(problem, anatomy.instance, one, claims),
            latency=claims.latency,
            load=load,
        )
        found[problem.points[one.design.point].role].append(replica)
    return tuple(
        Pool(role=role, replicas=tuple(some)) for role, some in found.items() if some
    )


def _expert_maps(
    instance: Instance, problem: Problem, fleet: Fleet
) -> tuple[ExpertMap, ...] | None:
    """The maps of the shapes in use; None without loads to balance."""
    maps = ExpertMaps(instance)
    shapes = {
        problem.units[stage.unit].shape
        for replica in fleet.replicas
        for stage in replica.design.stages
    }
    found = {}
    for shape in sorted(shapes):
        plan, balance = maps.plan(shape), maps.balance(shape)
        if plan is not None and balance is not None:
            slots = len(plan.physical_to_logical_map[0]) // shape.ep
            found[shape.ep, slots] = ExpertMap(
                ep=shape.ep,
                slots_per_gpu=slots,
                balance=balance,
                layers=plan.physical_to_logical_map,
            )
    return tuple(found.values()) or None


@dataclass(frozen=True)
class _Claims:
    """What a design says of all its replicas, whatever their GPUs."""

    figures: Figures
    point: OperatingPoint
    latency: ReplicaLatency
    memory: list[MemoryParts]
    apart: list[ExpertUnit | None]

    @classmethod
    def of(cls, problem: Problem, anatomy: MemoryAnatomy, design: Design) -> _Claims:
        figures = problem.rated(design)
        return cls(
            figures,
            _operating_point(problem.points[design.point]),
            _latency(figures),
            _memory(problem, anatomy, design, figures),
            _expert_units(problem, anatomy, design, figures),
        )


def _operating_point(point: Point) -> OperatingPoint:
    return OperatingPoint(
        sequences=point.sequences,
        micro_batches=point.micro_batches,
        micro_batch_sequences=point.micro_batch,
        prefill_chunk_tokens=point.chunk_tokens,
        prompt_tokens=point.prompt_tokens,
        chunk_count=point.chunk_count,
    )


def _latency(figures: Figures) -> ReplicaLatency:
    return ReplicaLatency(
        tpot_ns=figures.times.tpot_ns,
        ttft_ns=figures.times.ttft_ns,
        prefill_ns=figures.times.prefill_ns,
        rate_mtok_per_s=figures.rate_mtok_per_s,
    )


def _shape(shape: StageShape) -> Shape:
    return Shape(
        tp=shape.tp,
        attn_dp=shape.attn_dp,
        cp=shape.cp,
        moe_tp=shape.moe_tp,
        ep=shape.ep,
        moe_dp=shape.moe_dp,
    )


def _expert_slots(instance: Instance, shape: StageShape) -> int:
    """Expert slots of one GPU in the layer with most; 0 without experts."""
    experts = [e.experts for e in mixtures(instance.model)]
    return max((ceil_div(n + shape.redundant, shape.ep) for n in experts), default=0)


def _stages(
    problem: Problem, instance: Instance, named: NamedReplica, claims: _Claims
) -> tuple[Stage, ...]:
    stages, rank = [], 0
    for i, choice in enumerate(named.design.stages):
        unit, place = problem.units[choice.unit], named.stages[i]
        named_gpus = [
            (problem.islands[island].node, gpu)
            for island, gpus in zip(place.islands, place.gpus, strict=True)
            for gpu in gpus
        ]
        ranks = enumerate(named_gpus, start=rank)
        stages.append(
            Stage(
                layers=(choice.start, choice.end),
                shape=_shape(unit.shape),
                expert_slots=_expert_slots(instance, unit.shape),
                gpu_type=problem.classes[unit.gpu_class].name,
                gpus=tuple(GpuRank(node=n, gpu=g, rank=r) for r, (n, g) in ranks),
                memory_bytes=claims.memory[i],
                decode_time_ns=claims.figures.decode_ns[i],
                prefill_time_ns=claims.figures.prefill_ns[i],
                expert_unit=claims.apart[i],
            )
        )
        rank += unit.gpus
    return tuple(stages)


def _memory(
    problem: Problem, anatomy: MemoryAnatomy, design: Design, figures: Figures
) -> list[MemoryParts]:
    """Parts per stage; their sums must be the integers that were searched."""
    point = problem.points[design.point]
    units = [problem.units[s.unit] for s in design.stages]
    parts = anatomy.pipeline(
        [problem.classes[u.gpu_class].name for u in units],
        [u.shape for u in units],
        [(s.start, s.end) for s in design.stages],
        (point.sequences, point.micro_batch, point.chunk_tokens),
    )
    sums = tuple(p.total() for p in parts)
    if sums != figures.memory_bytes:
        raise SolverFailure(
            f"memory parts {sums} do not add up to the problem's table "
            f"{figures.memory_bytes}; please report this"
        )
    return parts


def _expert_units(
    problem: Problem, anatomy: MemoryAnatomy, design: Design, figures: Figures
) -> list[ExpertUnit | None]:
    """Expert GPUs per stage; their bytes must be the integers that were searched."""
    point = problem.points[design.point]
    batch = (point.sequences, point.micro_batch, point.chunk_tokens)
    found: list[ExpertUnit | None] = []
    for i, stage in enumerate(design.stages):
        unit, layers = problem.units[stage.unit], (stage.start, stage.end)
        if not unit.shape.disaggregated:
            found.append(None)
            continue
        name = problem.classes[unit.gpu_class].name
        parts = anatomy.expert_stage(name, unit.shape, layers, batch)
        if parts.total() != figures.expert_memory_bytes[i]:
            raise SolverFailure(
                f"memory parts of an expert GPU, {parts.total()} bytes, are not the "
                f"{figures.expert_memory_bytes[i]} of the problem; please report this"
            )
        shape = unit.shape
        apart = ExpertUnit(
            gpus=shape.expert_gpus, ping_pong=shape.ping_pong, memory_bytes=parts
        )
        found.append(apart)
    return found
