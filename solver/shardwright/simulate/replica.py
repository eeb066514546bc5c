"""Iteration laws of a plan's replicas: planes through the cost model's times.

The cost model's time of a stage is convex in sequences and prompt tokens. The plane
goes through three of its points: one sequence, a full micro-batch, and that with a full
prompt chunk (docs/cost-model.md section 12). Between them it lies on or above the true
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardwright.cost.lengths import ceil_div
from shardwright.cost.tails import IterationLaw, Station
from shardwright.cost.times import hop_ns
from shardwright.plan.anatomy import Anatomy, Load
from shardwright.problem import Compiler, stage_roles
from shardwright.schema.instance import Instance
from shardwright.schema.plan import Plan, Replica, Stage
from shardwright.simulate.machine import Group, Machine, Role, StageLaw


def stage_ns(anatomy: Anatomy, stage: Stage, role: int, load: Load) -> int:
    """Time of one iteration of a stage, as the cost model has it."""
    shape = anatomy.shape(stage)
    clock, ranks, on = anatomy.clock(stage), anatomy.ranks(stage), load.on(shape)
    layers = sum(
        count * int(clock.layer(ranks[kind], on)[0][0])
        for kind, count in anatomy.memory.kind_counts(*stage.layers).items()
    )
    return layers + int(clock.stage_constant(role, on)[0][0])


def stage_laws(anatomy: Anatomy, replica: Replica) -> tuple[StageLaw, ...]:
    """The plane of every stage, around the operating point of one micro-batch."""
    point = replica.operating_point
    decodes = replica.role != "prefill"
    low, high = (1, max(2, point.micro_batch_sequences)) if decodes else (0, 0)
    chunk = point.prefill_chunk_tokens
    laws = []
    roles = stage_roles(len(replica.stages))
    for stage, role in zip(replica.stages, roles, strict=True):
        at_low, at_high, full = (
            stage_ns(anatomy, stage, role, load) * 1e-9
            for load in (Load(low, 0), Load(high, 0), Load(high, chunk))
        )
        kappa = max((at_high - at_low) / (high - low), 0.0) if decodes else 0.0
        beta = max(full - at_high, 0.0) / chunk if chunk else 0.0
        laws.append(StageLaw(at_low - kappa * low, kappa, beta))
    return tuple(laws)


def hop_laws(anatomy: Anatomy, replica: Replica) -> tuple[StageLaw, ...]:
    """The law of every hop, the tokens' way back last; none for one stage."""
    if len(replica.stages) == 1:
        return ()
    laws = []
    pairs = zip(replica.stages[:-1], replica.stages[1:], strict=True)
    for hop, (sender, receiver) in zip(anatomy.hops(replica), pairs, strict=True):
        seconds = hop_ns(
            anatomy.instance.model,
            anatomy.instance.precision,
            anatomy.gpu(sender),
            anatomy.gpu(receiver),
            hop.within_island,
        )
        near, far = (float(t) * 1e-9 for t in seconds(np.array([0.0, 1e6])))
        each = (far - near) / 1e6
        laws.append(StageLaw(near, each, each))
    return (*laws, StageLaw(anatomy.return_ns(replica) * 1e-9, 0.0, 0.0))


def machine_of(anatomy: Anatomy, replica: Replica) -> Machine:
    """A replica as the simulator runs it; its KV room is what its memory pays for."""
    point = replica.operating_point
    ranks = max(stage.shape.attn_dp for stage in replica.stages)
    mine, alone = ceil_div(point.sequences, ranks), replica.role == "prefill"
    room = ranks * anatomy.memory.mix.kv_tokens(mine, alone)
    return Machine(
        stages=stage_laws(anatomy, replica),
        slots=point.sequences,
        chunk_tokens=point.prefill_chunk_tokens,
        micro_batches=point.micro_batches,
        hops=hop_laws(anatomy, replica),
        kv_tokens=room,
    )


def station_of(machine: Machine, role: Role = "mixed") -> Station:
    """A simulated replica as the closed forms take it: the slowest stage and the rest.

    The slowest part by part (docs/cost-model.md section 12), as the solver has it.
    """
    parts = np.array([(s.alpha_s, s.kappa_s, s.beta_s) for s in machine.stages])
    hops = np.array([(h.alpha_s, h.kappa_s, h.beta_s) for h in machine.hops])
    slowest = parts.max(axis=0)
    whole = parts.sum(axis=0) + (hops.sum(axis=0) if machine.hops else 0.0)
    return Station(
        IterationLaw(*map(float, slowest)),
        slots=machine.slots,
        chunk_tokens=machine.chunk_tokens,
        role=role,
        rest=IterationLaw(*(max(0.0, float(x)) for x in whole - slowest)),
        micro_batches=machine.micro_batches,
        # the tokens' way back delays the next lap, not the first token
        first_token_extra_s=-machine.hops[-1].alpha_s if machine.hops else 0.0,
    )


@dataclass(frozen=True)
class Fleet:
    """A plan's pools, and the share of the requests that each replica should get."""

    groups: tuple[Group, ...]
    shares: tuple[tuple[float, ...], ...]
    requests_per_s: float


def fleet_of(instance: Instance, plan: Plan) -> Fleet:
    """Every pool; replicas share requests in proportion to the rates they claim."""
    anatomy = Anatomy(instance, plan)
    groups, shares = [], []
    total = 0.0
    apart = instance.model_copy(update={"pools": "any"})
    transfer_s = Compiler(apart).transfer.ns * 1e-9
    for pool in plan.pools:
        machines = tuple(machine_of(anatomy, replica) for replica in pool.replicas)
        rates = [anatomy.requests_per_s(replica) for replica in pool.replicas]
        groups.append(Group(machines, pool.role, transfer_s))
        shares.append(tuple(rate / sum(rates) for rate in rates))
        total += sum(rates) if pool.role != "prefill" else 0.0
    return Fleet(tuple(groups), tuple(shares), total)
