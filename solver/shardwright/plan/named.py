"""Naming by topology: what a plan sends, placed by program C, and put into its ranks.

Where islands of switches are all that is known, any GPUs of an island cost the same
and naming.py is enough. Where the cluster tells its links, PCIe groups, rails or
switches, ranks are placed by link cost, and kept only where every stage still lies
on islands as the checker asks, and no replica is slower than it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardwright.cost.lengths import ceil_div
from shardwright.plan.anatomy import Anatomy, link_speed, network_speed
from shardwright.plan.communication import exchanges
from shardwright.plan.naming import NamedReplica, NamedStage, by_rate
from shardwright.plan.transfers import CONTEXT_ROWS, Exchange
from shardwright.problem import Design, Problem, crossings_of
from shardwright.problem.topology import Gpu, LinkClass, Topology
from shardwright.problem.traffic import (
    Collective,
    Kind,
    ReplicaTraffic,
    StageTraffic,
    Traffic,
)
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan, Replica, Stage
from shardwright.search.base import SearchLimits
from shardwright.search.placement import place
from shardwright.search.placement_types import PlacementCase, PlacementResult

_LIMIT_S = 10.0
_KINDS: dict[str, Kind] = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "all_to_all",
}


def placement_of(
    instance: Instance, plan: Plan, limits: SearchLimits | None = None
) -> PlacementResult:
    """The best GPUs for the ranks of a plan, whatever GPUs it names now.

    Ranks are free to leave their islands: what they then cost is in the result, and
    what the plan assumed of its links and cannot be had is in ``unrealisable``.
    """
    topology = Topology.from_cluster(instance.cluster)
    return place(topology, traffic_of(instance, plan), limits)


def named_by_topology(
    instance: Instance, problem: Problem, named: list[NamedReplica], plan: Plan
) -> list[NamedReplica]:
    """Other GPUs for the same replicas where the cluster's topology tells them apart.

    ``plan`` is the document of ``named``. What cannot be improved under the rules of
    islands stays as it is.
    """
    topology = Topology.from_cluster(instance.cluster)
    traffic = traffic_of(instance, plan)
    result = place(topology, traffic, SearchLimits(time_limit_s=_LIMIT_S))
    numbers = {node.name: i for i, node in enumerate(topology.nodes)}
    old = [
        [(numbers[gpu.node], gpu.gpu) for stage in replica.stages for gpu in stage.gpus]
        for replica in plan.replicas()
    ]
    if result.values >= PlacementCase(topology, traffic).goals(old):
        return named
    moved = _moved(problem, topology, named, result.assignment)
    return named if moved is None else moved


def _moved(
    problem: Problem,
    topology: Topology,
    named: Sequence[NamedReplica],
    assignment: Sequence[Sequence[Gpu]],
) -> list[NamedReplica] | None:
    """The replicas on their new GPUs; None where that breaks a claim of the plan."""
    home = {
        (island.node, gpu): i
        for i, island in enumerate(problem.islands)
        for gpu in island.gpus
    }
    found = []
    for old, ranks in zip(named, assignment, strict=True):
        queue = [(topology.nodes[node].name, gpu) for node, gpu in ranks]
        stages = []
        for choice, place_before in zip(old.design.stages, old.stages, strict=True):
            size = problem.units[choice.unit].gpus
            own, queue = queue[:size], queue[size:]
            stage = _stage(home, own)
            if len(stage.islands) != len(place_before.islands):
                return None
            if len({len(gpus) for gpus in stage.gpus}) > 1:
                return None
            stages.append(stage)
        crossings = crossings_of([stage.islands for stage in stages])
        moved = NamedReplica(replace(old.design, crossings=crossings), tuple(stages))
        if problem.reach is not None:
            moved = moved.with_links(problem, problem.reach)
        if _slower(problem, old, moved.design):
            return None
        found.append(moved)
    return by_rate(problem, found)


def _stage(
    home: dict[tuple[str, int], int], gpus: Sequence[tuple[str, int]]
) -> NamedStage:
    """Islands of a stage and its GPUs on each, in rank order."""
    by_island: dict[int, list[int]] = {}
    for node, gpu in gpus:
        by_island.setdefault(home[node, gpu], []).append(gpu)
    return NamedStage(
        tuple(by_island), tuple(tuple(gpus) for gpus in by_island.values())
    )


def _slower(problem: Problem, old: NamedReplica, design: Design) -> bool:
    before, after = problem.figures(old.design), problem.figures(design)
    return (
        after.tpot_ns > before.tpot_ns
        or after.times.ttft_ns > before.times.ttft_ns
        or after.comm_ns > before.comm_ns
    )


# -- what a plan sends --


def traffic_of(instance: Instance, plan: Plan) -> Traffic:
    """Bytes of one decode iteration of every replica, and the times assumed for them.

    Assumed is what the cost model's link classes give in this room's formulas: the
    island's link for collectives, the island's or the network's for hops.
    """
    anatomy = Anatomy(instance, plan)
    known: dict[tuple[Replica, tuple[bool, ...]], ReplicaTraffic] = {}
    found = []
    for one in plan.replicas():
        inside = tuple(hop.within_island for hop in anatomy.hops(one))
        bare = _without_gpus(one), inside
        if bare not in known:
            known[bare] = _replica_traffic(anatomy, one)
        found.append(known[bare])
    return Traffic(tuple(found))


def _without_gpus(replica: Replica) -> Replica:
    stages = tuple(
        stage.model_copy(
            update={"gpus": (stage.gpus[0].model_copy(update={"node": "", "gpu": 0}),)}
        )
        for stage in replica.stages
    )
    return replica.model_copy(update={"stages": stages})


def _replica_traffic(anatomy: Anatomy, replica: Replica) -> ReplicaTraffic:
    rows = exchanges(anatomy, replica)
    stages, hops, stage_ns, hop_ns = [], [], [], []
    for i, stage in enumerate(replica.stages):
        own = [row for row in rows if row.stage == i]
        stages.append(_stage_traffic(stage, own))
        stage_ns.append(_assumed_stage(anatomy, stage, stages[-1]))
        for row in (row for row in own if row.operation == "hop"):
            size = row.decode.bytes_each or 0
            hops.append(size)
            hop_ns.append(_assumed_hop(anatomy, replica, i, row))
    return ReplicaTraffic(tuple(stages), tuple(hops), 1, tuple(stage_ns), tuple(hop_ns))


def _stage_traffic(stage: Stage, rows: Sequence[Exchange]) -> StageTraffic:
    found = []
    for row in rows:
        ranks = _ranks(stage, row)
        size = (row.decode.bytes_each or 0) * row.decode.count
        if row.operation in _KINDS and ranks > 1 and row.decode.count:
            kind = _KINDS[row.operation]
            stride, calls = _stride(stage, row), row.decode.count
            found.append(Collective(kind, ranks, size, stride, calls))
    return StageTraffic(len(stage.gpus), tuple(found), stage.gpu_type)


def _ranks(stage: Stage, row: Exchange) -> int:
    """How many ranks run a collective together; groups beside tp span the stage.

    So do context groups beside attention data parallelism.
    1 for the groups within the attention GPUs of a disaggregated stage: they are not
    cut evenly from its ranks, so naming leaves them out.
    """
    whole = len(stage.gpus)
    if stage.expert_unit is not None:
        return whole if row.operation == "all-to-all" else 1
    if row.what in CONTEXT_ROWS:
        return stage.shape.cp if _groups_fill(stage) else whole
    if _within_ranks(stage, row):
        return stage.shape.tp
    if row.operation != "all-reduce" or row.what in ("experts",):
        return whole
    return stage.shape.tp


def _within_ranks(stage: Stage, row: Exchange) -> bool:
    """Whether context groups leave a collective to the GPUs of one attention rank."""
    shape = stage.shape
    alone = shape.attn_dp * shape.cp == shape.moe_dp
    return shape.cp > 1 and (row.what == "logits" or (row.what == "experts" and alone))


def _stride(stage: Stage, row: Exchange) -> int:
    """How far apart the ranks of a collective lie: context groups run across tp."""
    return stage.shape.tp if row.what in CONTEXT_ROWS and _groups_fill(stage) else 1


def _groups_fill(stage: Stage) -> bool:
    """Whether context groups across tensor-parallel ones make up the stage."""
    return stage.shape.attn_dp == 1 or stage.shape.tp == 1


def _assumed_stage(anatomy: Anatomy, stage: Stage, traffic: StageTraffic) -> int | None:
    """Collectives over the island's links; None for stages over several islands."""
    if anatomy.shape(stage).islands > 1:
        return None
    own = anatomy.gpu(stage).calibration
    speed = int(link_speed(anatomy.gpu(stage)) * 1e9)
    link = LinkClass("island", speed, round(own.hop_latency_us * 1000))
    return sum(_on(link, one) for one in traffic.collectives)


def _on(link: LinkClass, one: Collective) -> int:
    if one.kind == "all_to_all":
        peer = link.time_ns(one.size_bytes, one.ranks)
        return (one.ranks - 1) * (peer + (one.calls - 1) * link.latency_ns)
    steps = (2 if one.kind == "all_reduce" else 1) * (one.ranks - 1)
    sent = ceil_div(steps * one.size_bytes * 10**9, one.ranks * link.bytes_per_s)
    return sent + steps * one.calls * link.latency_ns


def _assumed_hop(anatomy: Anatomy, replica: Replica, i: int, row: Exchange) -> int:
    before, after = replica.stages[i : i + 2]
    ranks = min(len(before.gpus), len(after.gpus))
    size = row.decode.bytes_each or 0
    ends = [anatomy.gpu(before), anatomy.gpu(after)]
    inside = row.link != "network"
    speed = link_speed(ends[0]) if inside else network_speed(ends)
    own = ends[0].calibration
    latency = own.hop_latency_us if inside else own.network_latency_us
    link = LinkClass("assumed", int(speed * 1e9), round(latency * 1000))
    return link.time_ns(size, ranks) if size else 0
