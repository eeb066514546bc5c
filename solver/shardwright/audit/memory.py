"""Weights and KV cache of a strategy, from the model's exact sizes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from shardwright.audit.case import Case
from shardwright.audit.evidence import Evidence, Reading, Undecidable
from shardwright.audit.figures import attention, figure, mixtures
from shardwright.cost.memory import stage_weight_bytes
from shardwright.cost.shape import StageShape
from shardwright.plan.parts import MemoryAnatomy
from shardwright.plan.strategies import even_split
from shardwright.problem import stage_roles
from shardwright.schema.claims import (
    KvBytesClaim,
    KvTokensClaim,
    WeightsBalanceClaim,
    WeightsClaim,
)
from shardwright.schema.instance import Instance
from shardwright.schema.printed import BYTE, COUNT
from shardwright.schema.strategy_name import Strategy, parse_strategy

_GB = 10**9
_EXACT = frozenset({"widths", "formats"})


def stage_shape(strategy: Strategy, dense: bool) -> StageShape | None:
    """The shape of a stage; None where experts do not fill it evenly."""
    tp, cp = strategy.degree("tp"), strategy.degree("cp")
    if dense:
        return StageShape.dense(tp, cp)
    data = strategy.attn_dp or (strategy.degree("dp") if strategy.ep else 1)
    gpus, ep = tp * data * cp, strategy.degree("ep")
    moe_tp = strategy.moe_tp or max(1, gpus // ep)
    if gpus % (ep * moe_tp):
        return None
    return StageShape(tp, data, moe_tp, ep, gpus // (ep * moe_tp), cp=cp)


def stage_weights(instance: Instance, strategy: Strategy) -> list[int] | None:
    """Bytes of weights on one GPU of every stage; layers evenly, the outer stages
    with embedding and LM head. None where the strategy is no shape."""
    model, memory = instance.model, MemoryAnatomy(instance)
    shape = stage_shape(strategy, dense=not mixtures(instance))
    stages = strategy.degree("pp")
    if shape is None or stages > len(model.layers):
        return None
    ranges, roles = even_split(len(model.layers), stages), stage_roles(stages)
    return [
        memory.layer_bytes(shape, *layers, 1)[0]
        + stage_weight_bytes(model, instance.precision, shape.tp, role)
        for layers, role in zip(ranges, roles, strict=True)
    ]


def weights(case: Case, claim: WeightsClaim) -> Evidence:
    """The whole model's weights over the GPUs that divide them."""
    if claim.of != "model" and mixtures(case.instance):
        return _expert_weights(case, claim)
    if claim.total is None:
        whole = figure(case.instance, "weights")
        total, source, needs = whole.readings[0].value, whole.source, whole.needs
    else:
        total = case.sized(claim, "total", claim.total, BYTE)
        source, needs = case.shown(claim.total), frozenset()
    parts, text = _divided(claim, source)
    readings = [Reading(total / parts)]
    if claim.of == "tp_group":
        ranks = parse_strategy(claim.strategy or "TP1").degree("tp")
        readings.append(Reading(total / ranks, "one TP rank through all stages"))
    if claim.strategy is not None:
        text += _exactly(case.instance, parse_strategy(claim.strategy), claim.of)
    if claim.share_of is None:
        own = claim.total is None
        return Evidence(BYTE, text, tuple(readings), needs, counted=own)
    memory = case.sized(claim, "share_of", claim.share_of, BYTE)
    value = readings[0].value
    text = f"{float(value) / _GB:.4g} GB of {case.shown(claim.share_of)}: {text}"
    return Evidence(COUNT, text, (Reading(value / memory),), needs)


def _divided(claim: WeightsClaim, source: str) -> tuple[int, str]:
    if claim.of == "model" or claim.strategy is None:
        return 1, source
    strategy = parse_strategy(claim.strategy)
    stages, ranks = strategy.degree("pp"), strategy.degree("tp")
    if claim.of == "gpu":
        return stages * ranks, f"{source} / (TP {ranks} x PP {stages})"
    return stages, f"{source} / PP {stages}"


def _expert_weights(case: Case, claim: WeightsClaim) -> Evidence:
    """With experts an even share says little: attention is copied where they are not.

    The fullest GPU of the instance's widths is told.
    """
    found = stage_weights(case.instance, parse_strategy(claim.strategy or "TP1"))
    if found is None or claim.of != "gpu" or claim.share_of is not None:
        raise Undecidable("how attention and experts lie on the GPUs")
    text = "the fullest GPU, with its copy of attention and of the embedding"
    return Evidence(BYTE, text, (Reading(Fraction(max(found))),), _EXACT)


def _exactly(instance: Instance, strategy: Strategy, of: str) -> str:
    """What the outer and inner stages really hold."""
    found = stage_weights(instance, strategy)
    if found is None:
        return ""
    ranks = 1 if of == "gpu" else strategy.degree("tp")
    low, high = (ranks * size / _GB for size in (min(found), max(found)))
    if f"{low:.4g}" == f"{high:.4g}":
        return f"; exactly {low:.4g} GB"
    return (
        f"; exactly {low:.4g} GB on inner stages, {high:.4g} GB at most (embedding or "
        "LM head)"
    )


def weights_imbalance(case: Case, claim: WeightsBalanceClaim) -> Evidence:
    """(max - mean) / mean over GPUs; parts that are equal everywhere dilute it."""
    found = stage_weights(case.instance, parse_strategy(claim.strategy))
    if found is None:
        raise Undecidable(f"how {claim.strategy} divides the model")
    mean = Fraction(sum(found), len(found))
    share = (max(found) - mean) / mean
    text = (
        f"weights: at most {max(found) / _GB:.4g} GB, mean {float(mean) / _GB:.4g} GB "
        "a GPU; equal KV caches only lessen it"
    )
    return Evidence(COUNT, text, (Reading(share),), _EXACT)


def kv_per_token(instance: Instance, strategy: Strategy | None) -> tuple[int, str]:
    """KV bytes of one token in the model or on a GPU of the strategy, with layers
    split evenly, and the derivation."""
    memory, model = MemoryAnatomy(instance), instance.model
    named = strategy or Strategy()
    shape = stage_shape(named, dense=not mixtures(instance))
    if shape is None or named.degree("pp") > len(model.layers):
        raise Undecidable(f"how {named} divides the model")
    ranges: Sequence[tuple[int, int]] = even_split(
        len(model.layers), named.degree("pp")
    )
    ranks, precision = memory.ranks(shape), instance.precision
    kinds = model.kind_indices()
    sizes = [
        sum(ranks[kinds[i]].kv_bytes_per_token(precision) for i in range(*layers))
        for layers in ranges
    ]
    return max(sizes), _kv_text(instance, named, max(b - a for a, b in ranges))


def _kv_text(instance: Instance, strategy: Strategy, layers: int) -> str:
    try:
        kind = attention(instance)
    except Undecidable:
        return f"{layers} layers, of several kinds of attention"
    width = float(Fraction(_kv_value_bytes(instance)))
    if kind.type == "mla":
        return f"{layers} layers x {kind.latent_width} x {width:g} B (latents)"
    heads = -(-kind.kv_heads // strategy.degree("tp"))
    return f"{layers} layers x 2 x {heads} KV heads x {kind.head_dim} x {width:g} B"


def _kv_value_bytes(instance: Instance) -> Fraction:
    from shardwright.schema.workload import BYTES_PER_PARAMETER

    return Fraction(*BYTES_PER_PARAMETER[instance.precision.kv_cache])


def kv_bytes(case: Case, claim: KvBytesClaim) -> Evidence:
    """KV bytes per token; without a strategy, in the whole model."""
    name = claim.strategy
    strategy = parse_strategy(name) if name else None
    found, text = kv_per_token(case.instance, strategy)
    whole, _ = kv_per_token(case.instance, None)
    text += f" = {found:,} B"
    if whole != found:
        text += f"; {whole:,} B in the whole model"
    readings = (Reading(Fraction(found)),)
    return Evidence(BYTE, text, readings, _EXACT, counted=True)


def kv_tokens(case: Case, claim: KvTokensClaim) -> Evidence:
    """Memory over the KV bytes of one token on a GPU."""
    memory = case.sized(claim, "memory", claim.memory, BYTE)
    each, text = kv_per_token(case.instance, parse_strategy(claim.strategy))
    derivation = f"{case.shown(claim.memory)} / {each:,} B a token ({text})"
    return Evidence(COUNT, derivation, (Reading(Fraction(memory // each)),), _EXACT)
