"""Communication pattern: every collective and hop of a replica, with its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from shardwright.cost.memory import FIRST, LAST, padded_vocabulary
from shardwright.cost.times import StageClock, mean_ns
from shardwright.plan.anatomy import (
    Anatomy,
    Hop,
    Load,
    Times,
    has_embedding,
    has_lm_head,
    link_speed,
    network_speed,
)
from shardwright.plan.disaggregated import apart_rows
from shardwright.plan.expert_traffic import expert_rows
from shardwright.plan.transfers import Exchange, Operation, Transfer
from shardwright.problem import stage_roles
from shardwright.schema.plan import Replica, Stage


def exchanges(anatomy: Anatomy, replica: Replica) -> list[Exchange]:
    """All rows of one replica, stage by stage."""
    roles = stage_roles(len(replica.stages))
    hops = anatomy.hops(replica)
    rows: list[Exchange] = []
    for i, (stage, role) in enumerate(zip(replica.stages, roles, strict=True)):
        rows += _collectives(anatomy, replica, i, stage, role)
        if i < len(hops):
            rows.append(_hop_row(anatomy, replica, hops[i]))
    if hops:
        rows.append(_return_row(anatomy, replica))
    return rows


def _collectives(
    anatomy: Anatomy, replica: Replica, index: int, stage: Stage, role: int
) -> Iterator[Exchange]:
    if len(stage.gpus) == 1:
        return
    loads = anatomy.loads(replica.operating_point)

    def row(what: str, operation: Operation, made: list[Transfer]) -> Exchange:
        gpu = anatomy.gpu(stage)
        link, speed = gpu.link_technology, link_speed(gpu)
        if operation != "all-to-all" and anatomy.spans_islands(stage):
            link, speed = "network", network_speed([gpu])
        return Exchange(index, operation, what, link, speed, *made)

    sharded = stage.shape.tp > 1
    if sharded and has_embedding(role):
        made = [_embedding(anatomy, stage, load) for load in loads]
        yield row("embedding", "all-reduce", made)
    if stage.expert_unit is not None:
        yield from apart_rows(anatomy, index, stage, loads)
    elif stage.expert_slots or stage.shape.cp > 1:
        yield from expert_rows(anatomy, index, stage, loads)
    elif _layer_collectives(anatomy, stage):
        made = [_layers(anatomy, stage, load) for load in loads]
        yield row("layers", "all-reduce", made)
    if sharded and has_lm_head(role):
        made = [_logits(anatomy, stage, load) for load in loads]
        yield row("logits", "all-gather", made)
    if stage.shape.cp > 1 and has_lm_head(role):
        made = [_prompt_states(anatomy, stage, load) for load in loads]
        yield row("states", "all-gather", made)


def _layer_collectives(anatomy: Anatomy, stage: Stage) -> int:
    """All-reduces of a dense stage's layers: after attention, after the FFN."""
    ranks = anatomy.memory.ranks(anatomy.shape(stage))
    counts = anatomy.memory.kind_counts(*stage.layers)
    return sum(
        n * (int(ranks[k].attention is not None) + int(ranks[k].has_ffn))
        for k, n in counts.items()
    )


def _hidden_bytes(anatomy: Anatomy, stage: Stage, load: Load) -> int:
    hidden = anatomy.instance.model.hidden
    on = load.on(anatomy.shape(stage))
    share = 1.0 if on.share is None else float(on.share[0])
    prompts = float(on.rank_prompts(stage.shape.cp)[0])
    tokens = float(on.sequences[0]) + share * prompts
    return ceil(tokens * hidden * anatomy.activation_value_bytes)


def _layers(anatomy: Anatomy, stage: Stage, load: Load) -> Transfer:
    count = _layer_collectives(anatomy, stage)
    total = anatomy.layer_communication(stage, load)
    message = _hidden_bytes(anatomy, stage, load)
    return Transfer(count, message, total // count, total)


def _embedding(anatomy: Anatomy, stage: Stage, load: Load) -> Transfer:
    time = anatomy.constant_communication(stage, FIRST, load)
    return Transfer(1, _hidden_bytes(anatomy, stage, load), time, time)


def _prompt_states(anatomy: Anatomy, stage: Stage, load: Load) -> Transfer:
    """Hidden states of a context group's prompts, gathered after the last layer."""
    clock, on = anatomy.clock(stage), load.on(anatomy.shape(stage))
    assert isinstance(clock, StageClock), "measured without context groups"
    time = int(mean_ns(lambda one: (clock.returned_s(one),) * 2, on)[0][0])
    share = 1.0 if on.share is None else float(on.share[0])
    hidden = anatomy.instance.model.hidden * anatomy.activation_value_bytes
    return Transfer(1, ceil(share * float(on.prompts[0]) * hidden), time, time)


def _logits(anatomy: Anatomy, stage: Stage, load: Load) -> Transfer:
    time = anatomy.constant_communication(stage, LAST, load)
    if stage.shape.cp > 1:
        time = max(0, time - _prompt_states(anatomy, stage, load).total_ns)
    on = load.on(anatomy.shape(stage))
    prompts = float(on.prompts[0]) / float(anatomy.memory.mix.prompt_work)
    rows = float(on.sequences[0]) + prompts
    width = padded_vocabulary(anatomy.instance.model.vocabulary)
    size = ceil(rows * width * anatomy.activation_value_bytes)
    return Transfer(1, size, time, time)


def _hop_row(anatomy: Anatomy, replica: Replica, hop: Hop) -> Exchange:
    gpu = anatomy.gpu(replica.stages[hop.sender])
    return Exchange(
        hop.sender,
        "hop",
        "to next stage",
        gpu.link_technology if hop.within_island else "network",
        hop.gbyte_per_s,
        _once(hop.bytes_decode, hop.times.decode_ns),
        _once(hop.bytes_prefill, hop.times.prefill_ns),
    )


def _return_row(anatomy: Anatomy, replica: Replica) -> Exchange:
    """The tokens' return counts in a decode pass only, and as a latency."""
    once = _once(None, anatomy.return_ns(replica))
    last = len(replica.stages) - 1
    return Exchange(
        last, "return", "tokens to 0", "network", 0.0, once, Transfer(0, None, 0, 0)
    )


def _once(size: int | None, time_ns: int) -> Transfer:
    return Transfer(1, size, time_ns, time_ns)


def pass_totals(anatomy: Anatomy, replica: Replica) -> Times:
    """Communication of one pass through all stages, as the law counts it, ns."""
    collectives = anatomy.communication(replica)
    hops = anatomy.hops(replica)
    return Times(
        anatomy.communication_ns(replica),
        sum(t.prefill_ns for t in collectives) + sum(h.times.prefill_ns for h in hops),
    )
